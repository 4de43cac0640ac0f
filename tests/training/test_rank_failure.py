"""One of two real processes fails: the command ends, in time, and nothing stays behind."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import lightning as L
import pytest
import torch

from tests.runner import own_environment

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
PROJECT = Path(__file__).parents[2]
MINUTES = 0.5  # of waiting; a process has to start within it, too
STEP = 3


class Accident(L.Callback):
    """On one rank, in the middle of a fit: an error, a sleep without end, or the end of the process."""

    def __init__(self, rank: int, kind: str) -> None:
        self.rank, self.kind = rank, kind

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step != STEP or trainer.global_rank != self.rank:
            return
        Path(trainer.default_root_dir, "accident").touch()
        if self.kind == "raises":
            raise RuntimeError("an accident")
        if self.kind == "dies":
            os._exit(3)
        time.sleep(3600)


def over(rank, kind, strategy="ddp_find_unused_parameters_true"):
    accident = {"class_path": f"{__name__}.Accident", "init_args": {"rank": rank, "kind": kind}}
    trainer = {"devices": 2, "strategy": strategy, "max_steps": 50, "limit_val_batches": 0, "callbacks+": [accident]}
    return {"trainer": trainer, "rank_timeout": MINUTES}


def with_mark(mark: str) -> list[int]:
    """Processes that carry a mark in their environment, whoever their parents are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in (folder / "environ").read_bytes() and state != "Z":
                found.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def fit(config: Path, accident: Path) -> tuple[int, str, float, list[int]]:
    """Exit code, what it said, seconds from the accident to the end, and the processes that are left soon after."""
    mark = uuid.uuid4().hex
    environment = own_environment(PYTHONPATH=str(PROJECT), MARK=mark)
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(config)]
    said = config.with_suffix(".txt")
    with said.open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
        code = process.wait(timeout=300)
    seconds = time.time() - accident.stat().st_mtime
    deadline = time.monotonic() + 15  # workers of wandb and of loaders look for their parents now and then
    while (left := with_mark(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return code, said.read_text(), seconds, left


def step(runner, run):
    return torch.load(runner.checkpoint(run), weights_only=True)["global_step"]


def test_an_error_on_another_rank_ends_the_first_one_which_saves(runner):
    config = runner.config("autoencoder", "vq", over(1, "raises"))
    code, said, seconds, left = fit(config, runner.folder / "vq" / "accident")
    assert code == 1, said[-3000:]
    assert seconds < 60 * MINUTES and not left
    assert "an accident" in said and "process 0 of 2 has lost another one" in said
    assert step(runner, "vq") == STEP


def test_a_rank_that_hangs_is_waited_for_as_long_as_said(runner):
    config = runner.config("autoencoder", "vq", over(1, "hangs"))
    code, said, seconds, left = fit(config, runner.folder / "vq" / "accident")
    assert code == 1, said[-3000:]
    assert 60 * MINUTES <= seconds < 60 * MINUTES + 30 and not left
    assert f"process 0 of 2 has waited {MINUTES:g} minutes" in said and "Traceback" not in said
    assert step(runner, "vq") == STEP


@pytest.mark.parametrize("kind", ["raises", "dies"])
def test_others_end_with_the_first_rank(runner, kind):
    config = runner.config("autoencoder", "vq", over(0, kind))
    code, said, seconds, left = fit(config, runner.folder / "vq" / "accident")
    assert code == {"raises": 1, "dies": 3}[kind], said[-3000:]
    assert seconds < 60 * MINUTES and not left
