"""Lip-sync scores against published numbers and against a plain loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.sync import shifted_distances, sync_scores

GOLDEN = Path(__file__).parent.parent / "golden" / "syncnet.npz"


@pytest.mark.oracle
@pytest.mark.parametrize("late", [-3, 0, 4])
def test_scores_are_the_published_ones(late, record_difference):
    golden = np.load(GOLDEN)
    scores = sync_scores(*(torch.from_numpy(golden[f"{kind}_{late}"]) for kind in ("video", "audio")))
    assert scores.offset == golden[f"offset_{late}"] == -late
    for name in ("confidence", "distance"):
        difference = abs(getattr(scores, name) - golden[f"{name}_{late}"])
        record_difference(f"SyncNet, {name}, speech {late} frames late", difference, 5e-5)


@pytest.mark.parametrize("windows", [1, 40])
def test_scores_are_those_of_a_plain_loop(windows):
    lips, audio = np.random.default_rng(0).standard_normal((2, windows, 6))
    padded = np.pad(audio, ((15, 15), (0, 0)))
    expected = [[np.sqrt(((lips[i] - padded[i + k] + 1e-6) ** 2).sum()) for k in range(31)] for i in range(windows)]
    ours = shifted_distances(torch.from_numpy(lips), torch.from_numpy(audio))
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    scores, curve = sync_scores(torch.from_numpy(lips), torch.from_numpy(audio)), np.mean(expected, axis=0)
    assert scores.offset == 15 - np.argmin(curve) and scores.distance == pytest.approx(curve.min(), abs=1e-12)
    assert scores.confidence == pytest.approx(np.median(curve) - curve.min(), abs=1e-12)
    np.testing.assert_allclose(scores.curve, curve, atol=1e-12)
