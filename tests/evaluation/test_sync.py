"""Lip-sync scores against published numbers and against a plain loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.sync import LipSync, shifted_distances, sync_scores

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


@pytest.mark.parametrize(("windows", "largest_shift"), [(1, 15), (4, 15), (40, 15), (40, 3)])
def test_distances_are_those_of_a_plain_loop(windows, largest_shift):
    rng = np.random.default_rng(0)
    lips, audio = rng.standard_normal((2, windows, 6))
    expected = np.empty((windows, 2 * largest_shift + 1))
    for i in range(windows):
        for k in range(2 * largest_shift + 1):
            j = i + k - largest_shift
            other = audio[j] if 0 <= j < windows else np.zeros(6)
            expected[i, k] = np.sqrt(((lips[i] - other + 1e-6) ** 2).sum())
    ours = shifted_distances(torch.from_numpy(lips), torch.from_numpy(audio), largest_shift)
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    scores = sync_scores(torch.from_numpy(lips), torch.from_numpy(audio), largest_shift)
    curve = expected.mean(0)
    np.testing.assert_allclose(scores.curve, curve, atol=1e-12)
    assert scores.offset == largest_shift - np.argmin(curve)
    assert scores.distance == pytest.approx(curve.min(), abs=1e-12)
    assert scores.confidence == pytest.approx(np.median(curve) - curve.min(), abs=1e-12)


@pytest.mark.parametrize("late", range(-15, 16))
def test_every_shift_is_found_with_its_sign(late):
    said = torch.randn(200, 8, generator=torch.Generator().manual_seed(late + 20))
    heard = torch.stack([said[i - late] if 0 <= i - late < 200 else torch.zeros(8) for i in range(200)])
    scores = sync_scores(said, heard)
    assert scores.offset == -late
    assert scores.distance < 0.5
    assert scores.confidence > 1


@pytest.mark.parametrize(("lips", "audio"), [((5, 8), (6, 8)), ((0, 8), (0, 8)), ((5, 8, 1), (5, 8, 1))])
def test_streams_that_do_not_fit_are_refused(lips, audio):
    with pytest.raises(ValueError, match=r"lips are \(.*\), audio is \(.*\): expected \(N, C\)"):
        sync_scores(torch.zeros(lips), torch.zeros(audio))


def test_over_clips_each_counts_alike_whatever_its_length():
    rng = torch.Generator().manual_seed(3)
    clips = [torch.randn(2, windows, 8, generator=rng) for windows in (1, 30, 200)]
    clips.append(torch.stack([clips[-1][0], clips[-1][0].roll(4, 0)]))
    metric = LipSync()
    for lips, audio in clips:
        metric.update(lips, audio)
    means, each = metric.compute(), [sync_scores(lips, audio) for lips, audio in clips]
    for name in ("offset", "confidence", "distance"):
        assert getattr(means, name) == pytest.approx(np.mean([getattr(scores, name) for scores in each]), abs=1e-6)
    np.testing.assert_allclose(means.curve, np.mean([scores.curve.numpy() for scores in each], axis=0), atol=1e-6)
    assert each[-1].offset == -4 and means.curve.shape == (31,)


def test_without_a_clip_there_is_no_mean():
    assert np.isnan(LipSync().compute()[:3]).all()
