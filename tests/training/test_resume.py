"""A killed run goes on where it was."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.runner import own_environment
from tests.training.test_autoencoder import logged
from tests.wandb_records import read_wandb, runs

OVER = {
    "trainer": {
        "max_steps": 60,
        "limit_val_batches": 0,
        "callbacks": [
            {
                "class_path": "difftalk_pl.callbacks.checkpoints.LastCheckpoint",
                "init_args": {"dirpath": "${run}/checkpoints", "every_n_train_steps": 5},
            }
        ],
    }
}


@pytest.mark.slow
def test_a_fit_killed_by_sigkill_goes_on_with_the_windows_and_losses_of_an_uninterrupted_one(runner, codec):
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, **OVER}
    runner("fit", "diffusion", "whole", over)
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(runner.config("diffusion", "killed", over))]
    environment = own_environment(PYTHONUNBUFFERED="1")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not runner.checkpoint("killed").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = torch.load(runner.checkpoint("killed"), weights_only=True)["global_step"]
    assert 5 <= reached < 60
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "going on from" in again.stderr
    ids = {name for name, _ in runs(read_wandb(runner.folder / "killed", seconds=1))}
    assert ids == {(runner.folder / "killed" / "wandb_id.txt").read_text().strip()}
    losses = logged(runner.folder / "killed", "train/loss")
    assert len(losses) == 60 - reached
    assert losses == pytest.approx(logged(runner.folder / "whole", "train/loss")[reached:], rel=1e-3)
    assert not list((runner.folder / "killed" / "checkpoints").glob(".*"))
