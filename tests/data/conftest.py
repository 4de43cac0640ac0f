"""A small prepared dataset and clips without files, for the tests of what reads prepared data."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.latents.cache import LatentCache
from difftalk_pl.data.synthetic.dataset import synthesize
from tests.data.legacy.legacy_layouts import FRAMES, cut, steps_of, write_layout

CODEC = "0123abcd"
LATENT = (3, 4, 4)


@pytest.fixture(scope="session")
def talkers(tmp_path_factory) -> Path:
    """A dataset of three drawn people, 130 frames of 64 pixels each, with latents of the codec 0123abcd."""
    root = tmp_path_factory.mktemp("talkers")
    synthesize(root, clips=3, seconds=5.2, size=64, workers=1)
    cache = LatentCache(root, CODEC, "mouth_safe")
    cache.describe()
    for clip in open_clips(root):
        numbered_latents(cache, clip)
    return root


def numbered_latents(cache: LatentCache, clip: Clip) -> None:
    """Latents that tell where they stand: the integer part is the frame, halves mean masked."""
    frames = np.arange(clip.frames, dtype=np.float16)[:, None, None, None]
    latents = np.stack([np.broadcast_to(frames + kind / 2, (clip.frames, *LATENT)) for kind in (0, 1)])
    np.save(cache.path(clip.name), latents)


@pytest.fixture(scope="session")
def drawn_layout(tmp_path_factory) -> Path:
    """One video, id 1, with windows cut as AD-NeRF cuts them."""
    folder = tmp_path_factory.mktemp("drawn") / "HDTF"
    write_layout(folder, "1", cut(steps_of(FRAMES)))
    (folder / "data.txt").write_text(f"1 {FRAMES - 1}\n")
    (folder / "data_train.txt").write_text("".join(f"1_{k}\n" for k in range(1, FRAMES)))
    return folder


@pytest.fixture
def layout(drawn_layout, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(drawn_layout, tmp_path / "HDTF")
