"""All numbers of results.json from two real processes are those of one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backbones import write_backbone
from tests.callbacks.test_evaluation import evaluated, logged, results
from tests.runner import own_environment

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def in_two_processes(runner, command, settings):
    trainer = {**settings["trainer"], "devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    config = runner.config("diffusion", "run", {**settings, "trainer": trainer})
    project = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "difftalk_pl", command, "-c", str(config)]
    environment = own_environment(PYTHONPATH=project)
    result = subprocess.run(
        command, env=environment, cwd=project, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]


def assert_same(one, two, place=""):
    """Every number to a millionth, everything else exactly."""
    if isinstance(one, dict):
        assert list(one) == list(two), place
        for key in one:
            assert_same(one[key], two[key], f"{place}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), place
        for number, pair in enumerate(zip(one, two)):
            assert_same(*pair, f"{place}.{number}")
    else:
        assert one == (pytest.approx(two, rel=1e-5, abs=1e-6) if isinstance(one, float) else two), place


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
    in_two_processes(runner, "test", settings)
    assert alone["clips"]["scored"] == 3
    assert all(alone["methods"]["model"]["overall"][name] for name in ("lpips", "sync_distance", "jitter_pixels"))
    assert_same(alone, results(run))
    assert_same(dict(sorted(logged(run)[0].items())), dict(sorted(numbers.items())))
