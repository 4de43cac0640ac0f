"""A small prepared dataset and clips without files, for the tests of what reads prepared data."""

from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.synthetic.dataset import synthesize

CODEC = "0123abcd"
LATENT = (3, 4, 4)


@pytest.fixture(scope="session")
def talkers(tmp_path_factory) -> Path:
    """A dataset of three drawn people, 130 frames of 64 pixels each, with latents of the codec 0123abcd."""
    root = tmp_path_factory.mktemp("talkers")
    synthesize(root, clips=3, seconds=5.2, size=64, workers=1)
    cache = LatentCache(root, CODEC, "mouth_safe")
    cache.folder.mkdir(parents=True)
    for clip in open_clips(root):
        numbered_latents(cache, clip)
    return root


def numbered_latents(cache: LatentCache, clip: Clip) -> None:
    """Latents that tell where they stand: the integer part is the frame, halves mean masked."""
    frames = np.arange(clip.frames, dtype=np.float16)[:, None, None, None]
    latents = np.stack([np.broadcast_to(frames + kind / 2, (clip.frames, *LATENT)) for kind in (0, 1)])
    np.save(cache.path(clip.name), latents)
