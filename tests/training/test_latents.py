"""cache-latents as users run it: again, after a kill, with a damaged clip, and in two processes."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy, hide
from difftalk_pl.data.pixels import to_network
from difftalk_pl.errors import UserError
from difftalk_pl.training.cache_latents import cache_latents
from difftalk_pl.training.codec import LatentCodec
from tests.runner import own_environment


@pytest.fixture
def dataset(prepared, tmp_path) -> Path:
    """A copy without latents."""
    return shutil.copytree(prepared, tmp_path / "data", ignore=shutil.ignore_patterns("latents"))


@pytest.fixture
def cache(dataset, codec) -> LatentCache:
    return LatentCache(dataset, LatentCodec.load(codec).hash, "mouth_safe")


def test_latents_are_those_of_frames_and_masked_frames(prepared, codec):
    """The cache that the fixture made, against one frame encoded here."""
    network = LatentCodec.load(codec)
    clip = open_clips(prepared)[1]
    latents = LatentCache(prepared, network.hash, "mouth_safe").open(clip)
    for frame in (0, 37, clip.frames - 1):
        image = to_network(clip.reader()[frame])
        masked = hide(image, MaskPolicy("mouth_safe")(clip.landmarks[frame], image.shape[-1]))
        for cached, picture in zip(latents[:, frame], (image, masked), strict=True):
            z = network.encode(torch.from_numpy(picture)[None])[0].numpy()
            np.testing.assert_allclose(cached, z, rtol=2e-3, atol=2e-3 * np.abs(z).max())


def test_a_damaged_clip_costs_itself_alone_and_a_second_run_does_what_is_missing(dataset, cache, codec):
    names = sorted(clip.name for clip in open_clips(dataset))
    video = dataset / "clips" / names[1] / "video.mp4"
    whole = video.read_bytes()
    video.write_bytes(b"no video")
    with pytest.raises(UserError, match=rf"1 of 4 clips have no latents: {names[1]}: .*video\.mp4"):
        cache_latents(dataset, codec, workers=0)
    assert sorted(path.stem for path in cache.folder.glob("*.npy")) == [names[0], *names[2:]]
    written = {path: path.stat().st_mtime_ns for path in cache.folder.glob("*.npy")}
    video.write_bytes(whole)
    cache_latents(dataset, codec, workers=0)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert len(list(cache.folder.glob("*.npy"))) == 4 and not list(cache.folder.glob(".*"))


def test_damaged_latents_are_made_again(dataset, cache, codec):
    cache_latents(dataset, codec, workers=0)
    path = cache.path(open_clips(dataset)[0].name)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    cache_latents(dataset, codec, workers=0)
    assert path.read_bytes() == whole


def test_a_killed_run_leaves_no_half_file_under_its_name(dataset, cache, codec):
    options = ["--data", str(dataset), "--autoencoder", str(codec), "--workers", "0", "--batch_size", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "difftalk_pl", "cache-latents", *options],
        stderr=subprocess.DEVNULL,
        env=own_environment(),
    )
    deadline = time.monotonic() + 120
    while not list(cache.folder.glob(".*.tmp")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    clips = {clip.name: clip for clip in open_clips(dataset)}
    for path in cache.folder.glob("*.npy"):
        cache.open(clips[path.stem])
    cache_latents(dataset, codec, workers=0)
    assert len(list(cache.folder.glob("*.npy"))) == 4 and not list(cache.folder.glob(".*"))


@pytest.mark.ddp
def test_two_processes_write_the_files_of_one(prepared, dataset, cache, codec):
    (dataset / "clips" / "synthetic_002" / "video.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="1 of 4 clips have no latents: synthetic_002"):
        cache_latents(dataset, codec, workers=0, accelerator="cpu", devices=2, strategy="ddp_fork")
    one = LatentCache(prepared, cache.codec, "mouth_safe")
    for clip in open_clips(dataset):
        if clip.name != "synthetic_002":
            z, expected = (np.asarray(each.open(clip), np.float32) for each in (cache, one))
            np.testing.assert_allclose(z, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert not cache.path("synthetic_002").exists()
