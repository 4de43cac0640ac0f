"""results.json against numbers worked out by hand, and scipy's bootstrap."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from difftalk_pl.evaluation.judge import ClipScore
from difftalk_pl.evaluation.results import EvaluationResult, interval, protocol_hash, summarise

SCORES = {
    "a": ClipScore({"psnr": 30.0, "lpips": None, "sync_offset": -1.0}, {}, [3.0, 2.0]),
    "b": ClipScore({"psnr": None, "lpips": None, "sync_offset": 2.0}, {}),
    "c": ClipScore({"psnr": 33.0, "lpips": None, "sync_offset": None}, {"sync_offset": "no face"}),
    "d": ClipScore({"psnr": 36.0, "lpips": None, "sync_offset": None}, {}),
}
FRAMES = {"a": 10, "b": 1000, "c": 10, "d": 20}


def test_means_are_over_clips_whatever_their_lengths_and_what_failed_is_named():
    found = summarise(SCORES, FRAMES)
    assert found["overall"] == {"psnr": 33.0, "lpips": None, "sync_offset": 0.5}
    assert found["undefined"] == {"psnr": 1, "lpips": 4, "sync_offset": 2}
    assert found["failed"] == {"sync_offset": {"c": "no face"}}
    assert found["per_clip"]["b"] == {"psnr": None, "lpips": None, "sync_offset": 2.0, "frames": 1000}
    assert found["curves"] == {"a": [3.0, 2.0]}
    low, high = found["interval"]["psnr"]
    assert 30.0 <= low < 33.0 < high <= 36.0 and found["interval"]["lpips"] is None


def test_the_interval_is_that_of_scipy(record_difference):
    values = np.random.default_rng(1).gamma(2, 3, 40)
    for confidence in (0.95, 0.8):
        theirs = stats.bootstrap(
            (values,), np.mean, n_resamples=10_000, confidence_level=confidence, method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        difference = np.abs(np.subtract(interval(values, confidence), theirs)).max()
        record_difference("bootstrap interval against scipy, same draws", difference, 1e-9)
    assert interval([3.0]) is None and interval([0.25] * 5) == [0.25, 0.25]


def test_the_hash_is_of_data_and_measures_without_seeds_and_names_of_files():
    known = hashlib.sha256(b'{"data": {"c": null, "d": 2}, "measures": "x"}').hexdigest()[:12]
    assert protocol_hash({"measures": "x", "data": {"d": 2, "c": None, "seed": 4}, "generation": {"steps": 3}}) == known
    assert protocol_hash({"measures": "x", "data": {"d": 3, "c": None}}) != known
    one, other = ({"sync": {"file": name, "sha256": "abc"}} for name in ("a.model", "b.model"))
    assert protocol_hash({"data": {}, "measures": one}) == protocol_hash({"data": {}, "measures": other})


def test_a_file_is_whole_json_or_not_there(tmp_path):
    result = EvaluationResult({"model": summarise(SCORES, FRAMES)}, FRAMES, {"c": "cut off"})
    path, protocol = tmp_path / "deep" / "results.json", {"data": {}, "measures": {}}
    result.write(path, protocol, model=None, clips={"seen_in_training": ["x"]})
    found = json.loads(path.read_text())
    assert found["methods"]["model"]["overall"]["psnr"] == 33
    clips = {"scored": 3, "failed": 1, "not_scored": ["c"], "reasons": {"c": "cut off"}, "seen_in_training": ["x"]}
    assert found["clips"] == clips and found["model"] is None
    with pytest.raises(ValueError):
        result.write(path, protocol, {}, model=math.nan)
    assert "methods" in json.loads(path.read_text()) and len(list(path.parent.iterdir())) == 1


def test_the_shipped_scores_are_of_the_protocol_that_is_measured_today():
    paths = list(Path(__file__).parents[2].glob("experiments/demo/weights/**/results.json"))
    assert len(paths) == 2
    for path in paths:
        content = json.loads(path.read_text())
        assert protocol_hash(content["protocol"]) == content["protocol_hash"], path
