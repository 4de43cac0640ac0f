"""Both stages in two real processes."""

import os
import subprocess
import sys

import pytest
import torch

DDP = {"trainer": {"devices": 2, "strategy": "ddp_find_unused_parameters_true", "max_steps": 3}}
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def fit(runner, stage, run, over):
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(runner.config(stage, run, over))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_stage_one_with_discriminator_and_warm_up(runner):
    model = {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}, "codebook": {"warmup": 2}}
    result = fit(runner, "autoencoder", "vq", {"model": {"init_args": model}, **DDP})
    assert result.returncode == 0, result.stderr[-3000:]
    checkpoint = torch.load(runner.checkpoint("vq"), weights_only=True)
    assert checkpoint["global_step"] == 3 and int(checkpoint["state_dict"]["batches"]) == 3


def test_stage_two_averages_gradients_over_ranks_that_see_other_windows(runner, codec):
    result = fit(runner, "diffusion", "talk", {"model": {"init_args": {"autoencoder": str(codec)}}, **DDP})
    assert result.returncode == 0, result.stderr[-3000:]
    alone = {**DDP, "trainer": {**DDP["trainer"], "devices": 1, "strategy": "auto"}}
    result = fit(runner, "diffusion", "alone", {"model": {"init_args": {"autoencoder": str(codec)}}, **alone})
    assert result.returncode == 0, result.stderr[-3000:]
    two, one = (torch.load(runner.checkpoint(run), weights_only=True)["state_dict"] for run in ("talk", "alone"))
    name = "difftalk.denoiser.conv_in.weight"
    assert not torch.equal(two[name], one[name]), "the second rank's windows counted"
