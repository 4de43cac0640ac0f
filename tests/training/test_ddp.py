"""Both stages in two real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from difftalk_pl.training.weights import weights_hash
from tests.runner import own_environment

DDP = {
    "trainer": {
        "devices": 2,
        "strategy": "ddp_find_unused_parameters_true",
        "max_steps": 3,
        "callbacks+": [{"class_path": "tests.training.test_ddp.RankDiary"}],
    }
}
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


class RankDiary(L.Callback):
    """Writes what every rank saw and what it ended with."""

    def __init__(self) -> None:
        self.windows: list[Any] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.windows += [f"{clip}/{frame}" for clip, frame in zip(batch["clip"], batch["frame"].tolist())]

    def on_train_end(self, trainer, pl_module) -> None:
        network = getattr(pl_module, "difftalk", None) or pl_module.autoencoder
        content = {"windows": self.windows, "weights": weights_hash(network.state_dict())}
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(content))


def diaries(runner, run):
    return [json.loads((runner.folder / run / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def fit(runner, stage, run, over):
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(runner.config(stage, run, over))]
    project = str(Path(__file__).parents[2])
    environment = own_environment(PYTHONPATH=project)
    return subprocess.run(
        command, env=environment, cwd=project, capture_output=True, text=True, timeout=300, check=False
    )


def test_stage_one_with_discriminator_and_warm_up(runner):
    model = {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}, "codebook": {"warmup": 2}}
    result = fit(runner, "autoencoder", "vq", {"model": {"init_args": model}, **DDP})
    assert result.returncode == 0, result.stderr[-3000:]
    checkpoint = torch.load(runner.checkpoint("vq"), weights_only=True)
    assert checkpoint["global_step"] == 3 and int(checkpoint["state_dict"]["batches"]) == 3
    one, two = diaries(runner, "vq")
    assert one["weights"] == two["weights"], "gradients and codebook are the same on both ranks"
    assert not set(one["windows"]) & set(two["windows"])


@pytest.mark.parametrize("loading", [{}, {"order": "clips", "pool": 1, "latents_in_memory": True}])
def test_stage_two_shares_gradients_of_ranks_that_see_other_windows(runner, codec, loading):
    data = {"data": {"loading": loading}} if loading else {}
    result = fit(runner, "diffusion", "talk", {"model": {"init_args": {"autoencoder": str(codec)}}, **data, **DDP})
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = diaries(runner, "talk")
    assert one["weights"] == two["weights"]
    assert len(one["windows"]) == len(two["windows"]) == 12
    assert not set(one["windows"]) & set(two["windows"])
