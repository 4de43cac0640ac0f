"""All numbers of results.json from two real processes are those of one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backbones import write_backbone
from tests.callbacks.test_evaluation import evaluated, logged, results
from tests.runner import own_environment

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def flat(value, place=""):
    """The leaves of nested dicts and lists by their place."""
    if not isinstance(value, dict | list):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, inner in items for name, leaf in flat(inner, f"{place}.{key}").items()}


def test_two_processes_measure_what_one_does(runner, codec, fitted_diffusion, fitted_syncnet):
    """All measures of three clips: one process has two of them."""
    lpips = write_backbone(runner.folder / "drawn.pth")
    options = {"lpips": "squeeze", "lpips_weights": str(lpips), "faces": True, "sync_crop": "whole_frame"}
    callbacks = evaluated(syncnet=str(fitted_syncnet / "checkpoints" / "last.ckpt"), **options)
    split = {"train": ["synthetic_001"], "val": [], "test": ["synthetic_000", "synthetic_002", "synthetic_003"]}
    settings = {
        "model": {"init_args": {"autoencoder": str(codec)}},
        "data": {"contents": "images", "split": split, "test_frames": 6},
        "trainer": {"callbacks": callbacks},
        "ckpt_path": str(fitted_diffusion / "checkpoints" / "last.ckpt"),
    }
    runner("test", "diffusion", "run", settings)
    run = runner.folder / "run"
    alone, (numbers,) = results(run), logged(run).values()
    (run / "results.json").unlink()
    settings["trainer"] |= {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    command = [sys.executable, "-m", "difftalk_pl", "test", "-c", str(runner.config("diffusion", "run", settings))]
    environment = own_environment(PYTHONPATH=str(PROJECT))
    subprocess.run(command, env=environment, cwd=PROJECT, timeout=300, check=True)
    assert alone["clips"]["scored"] == 3
    assert all(alone["methods"]["model"]["overall"][name] for name in ("lpips", "sync_distance", "jitter_pixels"))
    found, known = flat(results(run)), flat(alone)
    for place in [place for place, value in known.items() if isinstance(value, float)]:
        assert found.pop(place) == pytest.approx(known.pop(place), rel=1e-5, abs=1e-6), place
    assert found == known
    assert logged(run)[0] == pytest.approx(numbers, rel=1e-5, abs=1e-6)
