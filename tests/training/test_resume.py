"""A fit that is killed goes on as if it had not been."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.runner import own_environment
from tests.training.test_autoencoder import logged

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
def test_a_fit_killed_by_sigkill_goes_on_with_the_losses_of_an_uninterrupted_one(runner, codec):
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
    losses = logged(runner.folder / "killed", "train/loss")
    assert losses == pytest.approx(logged(runner.folder / "whole", "train/loss")[reached:], rel=1e-3)
    assert not list((runner.folder / "killed" / "checkpoints").glob(".*"))
