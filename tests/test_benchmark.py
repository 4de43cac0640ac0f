"""The command `benchmark` on the smallest experiment."""

import re

import pytest

from difftalk_pl.benchmark import benchmark


def test_benchmark_prints_speed_and_memory_of_a_training_step(runner, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["difftalk_pl"])
    benchmark([runner.config("autoencoder", "timed")], steps=3, warmup=1)
    found = dict(re.findall(r"^ *(\w+) +([\d.]+) \S", capsys.readouterr().out, re.MULTILINE))
    assert found.keys() >= {"training", "data", "forward", "backward", "optimizer", "memory", "loader"}
    assert all(float(value) > 0 for value in found.values())
    milliseconds = sum(float(found[part]) for part in ("data", "forward", "backward", "optimizer"))
    assert float(found["training"]) * milliseconds / 1000 == pytest.approx(4, rel=0.1), "batches of 4"
    assert not (runner.folder / "timed").exists(), "nothing is written to the run's folder"
