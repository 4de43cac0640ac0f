"""Bootstrap intervals against scipy's, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from difftalk_pl.evaluation import bootstrap
from difftalk_pl.evaluation.bootstrap import interval


def scipys(values, seed, resamples=10_000, confidence=0.95):
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return found.confidence_interval


@pytest.fixture
def values():
    return np.random.default_rng(1).gamma(2, 3, 40)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_both_ends_are_scipys_of_the_same_draws(values, confidence, record_difference):
    difference = np.abs(np.subtract(interval(values, confidence), scipys(values, 0, confidence=confidence))).max()
    record_difference("bootstrap interval against scipy, same draws", difference, 1e-9)


def test_both_ends_are_scipys_of_other_draws(values, record_difference):
    low, high = scipys(values, 99)
    difference = np.abs(np.subtract(interval(values), (low, high))).max() / (high - low)
    record_difference("bootstrap interval against scipy, other draws, widths", difference, 0.04)


def test_memory_is_bounded_without_a_change(values, monkeypatch):
    whole = interval(values)
    monkeypatch.setattr(bootstrap, "CELLS", 1000)
    assert interval(values) == whole


def test_the_same_seed_gives_the_same_interval(values):
    assert interval(values) == interval(list(values)) != interval(values, seed=1)


@pytest.mark.parametrize("values", [[], [3.0]])
def test_fewer_than_two_clips_have_none(values):
    assert interval(values) is None


def test_equal_clips_have_an_interval_without_width():
    assert interval([0.25] * 5) == (0.25, 0.25)


def test_the_truth_lies_within_about_as_often_as_promised():
    rng = np.random.default_rng(2)
    trials = [interval(rng.normal(5, 2, 30), resamples=500, seed=trial) for trial in range(500)]
    share = np.mean([low <= 5 <= high for low, high in trials])
    assert 0.90 < share < 0.97
