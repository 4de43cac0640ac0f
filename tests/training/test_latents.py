"""cache-latents as a cluster runs it: several processes, one killed, one damaged clip."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from difftalk_pl.data.files.sums import add_sum

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.latents import SUMS, LatentCache
from difftalk_pl.errors import UserError
from difftalk_pl.training.codec import LatentCodec, cache_latents


@pytest.fixture
def dataset(prepared, tmp_path) -> Path:
    """A copy without latents."""
    return shutil.copytree(prepared, tmp_path / "data", ignore=shutil.ignore_patterns("latents"))


@pytest.fixture
def cache(dataset, codec) -> LatentCache:
    return LatentCache(dataset, LatentCodec.load(codec).hash, "mouth_safe")


def start(dataset: Path, codec: Path, *options: str) -> subprocess.Popen:
    given = ["--data", str(dataset), "--autoencoder", str(codec), "--workers", "0", *options]
    command = [sys.executable, "-m", "difftalk_pl", "cache-latents", *given]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_damaged_clip_does_not_hold_up_the_others(dataset, cache, codec):
    names = sorted(clip.name for clip in open_clips(dataset))
    (dataset / "clips" / names[1] / "video.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=rf"1 of 4 clips have no latents: {names[1]}: .*unreadable"):
        cache_latents(dataset, codec, workers=0)
    assert sorted(path.stem for path in cache.folder.glob("*.npy")) == [names[0], *names[2:]]


def test_damaged_latents_are_made_again(dataset, cache, codec, caplog):
    cache_latents(dataset, codec, workers=0)
    path = sorted(cache.folder.glob("*.npy"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    cache_latents(dataset, codec, workers=0)
    assert path.read_bytes() == whole and f"made again: {path}" in caplog.text


@pytest.mark.parametrize("what", ["anew", "taken over"])
def test_latents_of_a_clip_that_is_made_anew_meanwhile_are_not_kept(what, dataset, cache, codec, monkeypatch):
    encode, calls = LatentCodec.encode, []

    def meanwhile(self, image):
        if not calls and what == "anew":
            for clip in open_clips(dataset):
                add_sum(clip.folder / SUMS, "video.mp4", clip.folder / "audio.wav")
        elif not calls:
            (held,) = (cache.folder / "claims").glob("[!.]*.0")
            held.rename(held.with_suffix(".1"))
            for half_written in cache.folder.glob(".*.tmp"):
                half_written.unlink()
        calls.append(image)
        return encode(self, image)

    monkeypatch.setattr(LatentCodec, "encode", meanwhile)
    if what == "anew":
        with pytest.raises(UserError, match=r"1 of 4 clips have no latents: .*: was prepared anew meanwhile"):
            cache_latents(dataset, codec, workers=0)
        assert len(list(cache.folder.glob("*.npy"))) == 3
    else:
        monkeypatch.setattr("difftalk_pl.training.codec.POLL", 0.1)
        monkeypatch.setattr("difftalk_pl.data.files.claims.is_running", lambda process: False)
        cache_latents(dataset, codec, workers=0)
        assert len(list(cache.folder.glob("*.npy"))) == 4
    assert not list(cache.folder.glob(".*.tmp"))


def test_latents_of_another_clip_than_is_there_are_made_again(dataset, cache, codec, caplog):
    cache_latents(dataset, codec, workers=0)
    clip = open_clips(dataset)[0]
    add_sum(clip.folder / SUMS, "landmarks.npy", clip.folder / "audio.wav")
    cache_latents(dataset, codec, workers=0)
    assert "made from another landmarks.npy" in caplog.text and not cache.made_from_others(clip)


@pytest.mark.slow
def test_three_processes_one_of_them_killed(dataset, cache, codec):
    """The others take over what it had begun; nothing half is left."""
    processes = [start(dataset, codec, "--batch_size", "1") for _ in range(3)]
    deadline = time.monotonic() + 120
    while not (begun := list(cache.folder.glob(".*.tmp"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    name = begun[0].name[1:].split(".")[0]
    number = (cache.folder / "claims" / f"{name}.0").read_text().split()[1]
    os.kill(int(number), signal.SIGKILL)
    assert sorted(process.wait(timeout=120) for process in processes) == [-9, 0, 0]
    for clip in open_clips(dataset):
        assert np.isfinite(cache.open(clip)).all()
    names = {path.name for path in cache.folder.iterdir()}
    files = (f"{clip.name}{suffix}" for clip in open_clips(dataset) for suffix in (".npy", ".sha256"))
    assert names == {"latents.json", "claims", *files}
    assert list((cache.folder / "claims").iterdir()) == []
