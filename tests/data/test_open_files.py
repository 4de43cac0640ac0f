"""What a process has open while it reads windows, and what it hands to others."""

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from difftalk_pl.data import clips as clips_module
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import EVALUATION, FRAME, OPEN_CLIPS, Draw, Windows
from difftalk_pl.media.video import FrameReader
from tests.data.test_dataset import assert_equal


class OwnedReader(FrameReader):
    """A decoder that only the process that made it may use."""

    def __init__(self, path) -> None:
        super().__init__(path)
        self.owner = os.getpid()

    def __getitem__(self, k: int) -> np.ndarray:
        assert self.owner == os.getpid(), "a decoder was inherited"
        return super().__getitem__(k)


def test_forked_workers_open_their_own_files(talkers, monkeypatch):
    monkeypatch.setattr(clips_module, "FrameReader", OwnedReader)
    windows = Windows(open_clips(talkers), FRAME)
    before = windows[5]["image"]
    context = multiprocessing.get_context("fork")
    stream = iter(DataLoader(windows, 10, num_workers=2, multiprocessing_context=context))
    images = []
    for batch in (next(stream) for _ in range(4)):
        images.append(batch["image"])
        assert torch.equal(windows[5]["image"], before), "the parent goes on reading beside its workers"
    np.testing.assert_array_equal(images[0][5], before)
    assert torch.equal(torch.cat(images), torch.stack([windows[index]["image"] for index in range(40)]))


def test_used_windows_are_pickled_without_what_they_read(talkers):
    windows = Windows(open_clips(talkers), EVALUATION)
    before = windows[Draw(250, 1)]
    content = pickle.dumps(windows)
    assert len(content) < 5000
    assert_equal([dict(pickle.loads(content)[Draw(250, 1)])], [dict(before)])


@pytest.fixture
def many_clips(talkers, tmp_path) -> list[Clip]:
    """More clips than may be open, all of them the same person."""
    source, root = open_clips(talkers)[0], tmp_path
    (root / "clips").mkdir()
    clips = [Clip(root, f"clip{number:02d}", source.frames) for number in range(OPEN_CLIPS + 12)]
    for clip in clips:
        clip.folder.symlink_to(source.folder)
    return clips


def open_files(end: str) -> int:
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(os.path.realpath(path).endswith(end) for path in links)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux tells them")
def test_old_clips_are_closed_and_opened_again(many_clips):
    windows = Windows(many_clips, EVALUATION)
    before = {end: open_files(end) for end in ("video.mp4", "landmarks.npy", "mfcc.npy")}
    first = windows.window(0, 10)
    for number in range(len(many_clips)):
        windows.window(number, 10)
    for end, count in before.items():
        assert count < open_files(end) <= count + OPEN_CLIPS, end
    assert_equal([dict(windows.window(0, 10))], [dict(first)])
