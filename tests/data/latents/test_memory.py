"""Latents in memory: once for all processes of a node, and gone with the last of them, however it ended."""

import multiprocessing
import os
import pickle
import signal
import sys
import time

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.latents import memory as latent_memory
from difftalk_pl.data.latents.cache import LatentCache
from difftalk_pl.data.latents.memory import LatentMemory, find
from difftalk_pl.data.loading.latent_batches import LatentBatches
from difftalk_pl.data.windows.dataset import TRAINING, Windows
from difftalk_pl.errors import UserError
from tests.data.windows.test_dataset import CODEC, assert_equal, latent_windows

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory without a file is Linux's")


@pytest.fixture
def cached(talkers, tmp_path) -> tuple[LatentCache, list[Clip]]:
    """Latents that no other test has in memory."""
    cache = LatentCache(tmp_path, CODEC, "mouth_safe")
    cache.describe()
    clips = open_clips(talkers)
    for clip in clips:
        array = np.random.default_rng(clip.frames).standard_normal((2, clip.frames, 3, 4, 4)).astype(np.float16)
        np.save(cache.path(clip.name), array)
    return cache, clips


def content(memory: LatentMemory, clips: list[Clip]) -> list[np.ndarray]:
    return [memory.reader(clip).read(0, 2 * clip.frames).reshape(2, clip.frames, 3, 4, 4) for clip in clips]


def assert_same(memory: LatentMemory, cache: LatentCache, clips: list[Clip]) -> None:
    for found, clip in zip(content(memory, clips), clips, strict=True):
        np.testing.assert_array_equal(found, np.load(cache.path(clip.name)))


def test_batches_from_memory_are_those_from_the_disk(talkers):
    disk = latent_windows(talkers)
    memory = LatentMemory(LatentCache(talkers, CODEC, "mouth_safe"), open_clips(talkers))
    windows = Windows(open_clips(talkers), TRAINING, latents=memory)
    draws = [0, 150, 389, 27]
    assert_equal([LatentBatches(windows).__getitems__(draws)], [LatentBatches(disk).__getitems__(draws)])
    assert_equal([dict(windows[150])], [dict(disk[150])])


def test_the_files_are_not_read_again(cached):
    cache, clips = cached
    memory = LatentMemory(cache, clips)
    before = content(memory, clips)
    for clip in clips:
        cache.path(clip.name).unlink()
    for one, other in zip(content(memory, clips), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_one_takes_what_is_there_and_the_last_one_frees_it(cached, monkeypatch):
    cache, clips = cached
    first = LatentMemory(cache, clips)
    monkeypatch.setattr(LatentMemory, "_copy", lambda self, number: pytest.fail("copied twice"))
    second, sent = LatentMemory(cache, clips), pickle.loads(pickle.dumps(first))
    name = first.name
    del first
    for memory in (second, sent):
        assert_same(memory, cache, clips)
    assert find(name) is not None
    del second, sent, memory
    assert find(name) is None


def test_files_that_changed_are_copied_anew(cached):
    cache, clips = cached
    before = LatentMemory(cache, clips)
    np.save(cache.path(clips[0].name), np.ones((2, clips[0].frames, 3, 4, 4), np.float16))
    after = LatentMemory(cache, clips)
    assert_same(after, cache, clips)
    assert after.name != before.name and content(before, clips)[0].std() > 0.5


def test_too_little_memory_is_told_before_anything_is_copied(cached, monkeypatch):
    monkeypatch.setattr(latent_memory, "available_memory", lambda: 20_000)
    with pytest.raises(UserError, match=r"needs 9.*e-05 GB of memory, 2e-05 GB are available.*set it to false"):
        LatentMemory(*cached)


def hold(cache, clips, ready, go_on, *, at_clip: int) -> None:
    """A process that copies, and stands still within a clip."""
    copy, count = LatentMemory._copy, [0]

    def slow(self, number):
        count[0] += 1
        if count[0] == at_clip:
            ready.set()
            go_on.wait()
        copy(self, number)

    LatentMemory._copy = slow
    memory = LatentMemory(cache, clips)
    ready.set()
    assert_same(memory, cache, clips)
    go_on.wait()


@pytest.fixture
def started():
    """Starts such processes; none outlives the test."""
    context = multiprocessing.get_context("fork")
    running = []

    def start(cache, clips, at_clip=0):
        ready, go_on = context.Event(), context.Event()
        process = context.Process(target=hold, args=(cache, clips, ready, go_on), kwargs={"at_clip": at_clip})
        process.start()
        running.append(process)
        assert ready.wait(20)
        return process, go_on

    yield start
    for process in running:
        process.kill()
        process.join()


def test_another_process_ends_the_work_of_one_that_is_killed(cached, started):
    cache, clips = cached
    killed, _ = started(cache, clips, at_clip=2)
    other_ready = multiprocessing.get_context("fork").Event()
    other = multiprocessing.get_context("fork").Process(
        target=lambda: (assert_same(LatentMemory(cache, clips), cache, clips), other_ready.set())
    )
    other.start()
    assert not other_ready.wait(0.3), "it waits for the clip that the first one copies"
    os.kill(killed.pid, signal.SIGKILL)
    assert other_ready.wait(20)
    other.join()
    assert other.exitcode == 0


def test_nothing_is_left_of_killed_processes(cached, started):
    cache, clips = cached
    processes = [started(cache, clips)[0] for _ in range(2)]
    memory = LatentMemory(cache, clips)
    name, shared = memory.name, os.fstat(memory.file.fileno()).st_ino
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert_same(memory, cache, clips)
    del memory
    assert find(name) is None
    again = LatentMemory(cache, clips)
    assert os.fstat(again.file.fileno()).st_ino != shared
    assert_same(again, cache, clips)


def test_processes_that_start_together_share_one_memory(cached):
    cache, clips = cached
    context = multiprocessing.get_context("fork")
    found, barrier, over = context.Queue(), context.Barrier(4), context.Event()

    def start():
        barrier.wait()
        memory = LatentMemory(cache, clips)
        assert_same(memory, cache, clips)
        found.put(os.fstat(memory.file.fileno()).st_ino)
        over.wait()

    processes = [context.Process(target=start) for _ in range(4)]
    for process in processes:
        process.start()
    assert len({found.get(timeout=20) for _ in processes}) == 1
    over.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_a_file_that_changes_while_it_is_copied_is_named(cached, monkeypatch):
    cache, clips = cached
    lock = LatentMemory._copy_once

    def touched(self, number, wait):
        os.utime(self.layouts[number].path, (time.time() + 5, time.time() + 5))
        lock(self, number, wait)

    monkeypatch.setattr(LatentMemory, "_copy_once", touched)
    with pytest.raises(UserError, match=r"\.npy: changed while it was copied"):
        LatentMemory(cache, clips)
