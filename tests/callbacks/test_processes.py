"""How long processes wait for each other, and what is said when they stop."""

import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from difftalk_pl.callbacks.processes import end_children, explained, set_timeout
from difftalk_pl.cli import DiffTalkCLI

OWN = timedelta(minutes=7)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_the_command_line_sets_the_timeout_before_the_processes_meet(strategy, runner, monkeypatch):
    monkeypatch.setattr(DiffTalkCLI, "_run_subcommand", lambda *_: None)
    over = {"trainer": {"devices": 2, "strategy": strategy, "logger": False}, "rank_timeout": 0.5}
    assert runner("fit", "autoencoder", "vq", over).trainer.strategy._timeout == timedelta(seconds=30)
    assert not torch.distributed.is_initialized()


def test_a_timeout_of_the_strategy_itself_stays():
    for strategy, found in (
        (DDPStrategy(), timedelta(minutes=2)),
        (DDPStrategy(timeout=OWN), OWN),
        (FSDPStrategy(), timedelta(minutes=2)),
    ):
        set_timeout(SimpleNamespace(strategy=strategy), 2)
        assert strategy._timeout == found


def test_one_process_waits_for_nobody():
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    set_timeout(trainer, 2)
    end_children(trainer)
    assert not hasattr(trainer.strategy, "_timeout")
    assert explained(RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc] closed"), trainer) is None


@pytest.mark.parametrize(
    "error, said",
    [
        (
            RuntimeError("[x/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1ms for recv"),
            "waited 7 minutes",
        ),
        (
            RuntimeError("[x/gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:1"),
            "lost another one",
        ),
        (torch.distributed.DistNetworkError("The client socket has timed out after 1000ms"), "waited 7 minutes"),
        (RuntimeError("an accident"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_the_end_of_waiting_is_one_line_and_other_errors_stay(error, said):
    trainer = SimpleNamespace(world_size=2, global_rank=1, strategy=DDPStrategy(timeout=OWN))
    line = explained(error, trainer)
    assert (line is None) if said is None else (said in str(line) and "process 1 of 2" in str(line))


def test_children_are_killed_even_asleep():
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
    launcher = SimpleNamespace(kill=child.send_signal)
    end_children(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)))
    assert child.wait(timeout=30) == -9
