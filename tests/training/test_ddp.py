"""Training in two real processes: the numbers of one process, no window twice, and an end when a process fails."""

import json
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

from difftalk_pl.training.weights import weights_hash
from tests.runner import merge, own_environment
from tests.training.test_autoencoder import logged, state

PROJECT = Path(__file__).parents[2]
DDP = {
    "devices": 2,
    "strategy": "ddp_find_unused_parameters_true",
    "callbacks+": [{"class_path": "tests.training.test_ddp.RankRecord"}],
}
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


class RankRecord(L.Callback):
    """Write the windows that a rank saw and the hash of its weights at the end, without batch statistics."""

    def __init__(self) -> None:
        self.windows: list[str] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.windows += [f"{clip}/{frame}" for clip, frame in zip(batch["clip"], batch["frame"].tolist())]

    def on_train_end(self, trainer, pl_module) -> None:
        state = {name: value for name, value in pl_module.state_dict().items() if "running" not in name}
        content = {"windows": self.windows, "weights": weights_hash(state)}
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(content))


class Accident(L.Callback):
    """Raise an error on one rank in the middle of a fit."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 3 and trainer.global_rank == self.rank:
            raise RuntimeError("an accident")


def fit(runner, stage, run, over):
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(runner.config(stage, run, over))]
    environment = own_environment(PYTHONPATH=str(PROJECT))
    return subprocess.run(
        command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False
    )


def on_two_ranks_and_on_one(runner, stage, over):
    """Fit with batches of 4 on two ranks and of 8 on one; the ranks' records."""
    result = fit(runner, stage, "two", merge({"trainer": DDP}, over))
    assert result.returncode == 0, result.stderr[-3000:]
    runner("fit", stage, "one", merge({"data": {"loading": {"batch_size": 8}}}, over))
    records = [json.loads((runner.folder / "two" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert not set(records[0]["windows"]) & set(records[1]["windows"])
    return records


def test_stage_one_trains_on_two_ranks_as_on_one(runner):
    """The discriminator's share is tiny, since its batch normalisation sees the batch of one rank."""
    model = {
        "adversarial": {"weight": 1e-30, "filters": 8, "layers": 1},
        "codebook": {"revive_after": 3},
    }
    trainer = {"max_steps": 4, "val_check_interval": 4, "limit_val_batches": 1.0}
    over = {"model": {"init_args": model}, "trainer": trainer, "data": {"val_frames": 7}}
    one, two = on_two_ranks_and_on_one(runner, "autoencoder", over)
    assert one["weights"] == two["weights"], "codebook and all networks"
    on_one, on_two = (state(runner, run) for run in ("one", "two"))
    for name, value in on_one.items():
        if not name.startswith(("discriminator", "codebook")) and "quantize" not in name:  # other cells are revived
            torch.testing.assert_close(on_two[name], value, rtol=0.02, atol=0.02, msg=name)
    losses = [logged(runner.folder / run, "val/l1") for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=0.01), "of 7 frames"


def test_stage_two_trains_and_validates_on_two_ranks(runner, codec):
    """The noise depends on the rank, so that at a rate of 0 the validation loss alone is that of one rank."""
    model = {"autoencoder": str(codec), "optimisation": {"learning_rate": 0.0}}
    trainer = {"max_steps": 2, "limit_val_batches": 1.0}
    over = {"model": {"init_args": model}, "trainer": trainer, "data": {"val_frames": 7}}
    one, two = on_two_ranks_and_on_one(runner, "diffusion", over)
    assert one["weights"] == two["weights"] and len(one["windows"]) == len(two["windows"]) == 8
    losses = [logged(runner.folder / run, "val/loss") for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4), "of 7 frames"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_job_ends_when_a_rank_fails_and_the_last_regular_checkpoint_is_good(runner, rank):
    accident = {"class_path": "tests.training.test_ddp.Accident", "init_args": {"rank": rank}}
    last = {"dirpath": "${run}/checkpoints", "every_n_train_steps": 2}
    saving = {"class_path": "difftalk_pl.callbacks.checkpoints.LastCheckpoint", "init_args": last}
    trainer = {**DDP, "max_steps": 50, "limit_val_batches": 0, "callbacks": [saving], "callbacks+": [accident]}
    result = fit(runner, "autoencoder", "vq", {"trainer": trainer})
    assert result.returncode != 0 and "an accident" in result.stderr
    saved = torch.load(runner.checkpoint("vq"), weights_only=True)["global_step"]
    assert saved == 3 if rank == 0 else saved in (2, 3), "the first rank saves unless it is killed first"
