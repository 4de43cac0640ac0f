"""results.json against numbers worked out by hand."""

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

from difftalk_pl.callbacks.results import protocol_hash, summarise, write_results


class Score(NamedTuple):
    values: dict
    failed: dict
    curve: list | None = None


@pytest.fixture
def summary():
    scores = {
        "a": Score({"psnr": 30.0, "lpips": None, "sync_offset": -1.0}, {}, [3.0, 2.0]),
        "b": Score({"psnr": math.inf, "lpips": None, "sync_offset": 2.0}, {}),
        "c": Score({"psnr": 33.0, "lpips": None, "sync_offset": None}, {"sync_offset": "no face"}),
        "d": Score({"psnr": 36.0, "lpips": None, "sync_offset": math.nan}, {}),
    }
    return summarise(scores, {"a": 10, "b": 1000, "c": 10, "d": 20})


def test_means_are_over_clips_whatever_their_lengths_and_leave_out_what_is_not_finite(summary):
    assert summary["overall"] == {"psnr": 33.0, "lpips": None, "sync_offset": 0.5}
    assert summary["undefined"] == {"psnr": 1, "lpips": 4, "sync_offset": 2}


def test_what_failed_is_named_with_its_reason_and_every_clip_stays_in_the_file(summary):
    assert summary["failed"] == {"sync_offset": {"c": "no face"}}
    assert summary["per_clip"]["b"] == {"psnr": None, "lpips": None, "sync_offset": 2.0, "frames": 1000}
    assert list(summary["per_clip"]) == ["a", "b", "c", "d"] and summary["curves"] == {"a": [3.0, 2.0]}


def test_an_interval_lies_around_its_mean_and_needs_two_clips(summary):
    low, high = summary["interval"]["psnr"]
    assert 30.0 <= low < 33.0 < high <= 36.0
    assert summary["interval"]["lpips"] is None
    alone = summarise({"a": Score({"psnr": 30.0}, {})}, {"a": 1})
    assert alone["interval"] == {"psnr": None} and alone["overall"] == {"psnr": 30.0}


def test_the_hash_is_that_of_the_sorted_json():
    known = hashlib.sha256(b'{"data": {"c": null, "d": 2}, "measures": "x"}').hexdigest()[:12]
    assert protocol_hash({"measures": "x", "data": {"d": 2, "c": None}}) == known
    assert protocol_hash({"measures": "y", "data": {"d": 2, "c": None}}) != known
    assert protocol_hash({"measures": "x", "data": {"d": 3, "c": None}}) != known


def test_generation_seeds_and_names_of_files_do_not_part_what_was_measured_alike():
    def of(steps, seed, file, sha256="abc"):
        measures = {"sync": {"file": file, "sha256": sha256}, "lpips": None}
        return protocol_hash({"data": {"fps": 25, "seed": seed}, "measures": measures, "generation": {"steps": steps}})

    assert of(12, 1, "a.model") == of(200, 2, "b.model") != of(12, 1, "a.model", sha256="def")


def test_a_protocol_of_the_first_format_counts_as_a_whole():
    known = hashlib.sha256(b'{"a": {"c": null}, "data": 1}').hexdigest()[:12]
    assert protocol_hash({"data": 1, "seed": 1, "a": {"c": None, "seed": 2}}) == known


def test_a_file_is_whole_json_or_not_there(tmp_path, summary):
    path = tmp_path / "deep" / "results.json"
    write_results(path, {"methods": {"model": summary}})
    assert json.loads(path.read_text())["methods"]["model"]["overall"]["lpips"] is None
    with pytest.raises(ValueError):
        write_results(path, {"methods": math.nan})
    assert "methods" in json.loads(path.read_text()) and len(list(path.parent.iterdir())) == 1


def test_the_shipped_scores_are_of_the_protocol_that_is_measured_today():
    for path in Path(__file__).parents[2].glob("experiments/demo/weights/**/results.json"):
        content = json.loads(path.read_text())
        assert protocol_hash(content["protocol"]) == content["protocol_hash"], path
        keys = {"crop", "landmarks", "frame_size", "fps", "mask", "frames_per_clip", "mean"}
        assert set(content["protocol"]["data"]) == keys and "-dirty" not in content["model"]["revision"]
