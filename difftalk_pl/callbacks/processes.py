"""One process of several fails: the others neither wait for ever nor stay behind.

Lightning starts the processes of a machine as children of the first one. A thread there looks every five seconds for a
child that has failed, and then kills all, the first included. The other way round nobody looks: children of a first
process that has failed go on, asleep or waiting.
"""

import signal
import threading
from datetime import timedelta

import lightning as L
import torch
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout

from difftalk_pl.errors import UserError

OBSERVER = "child-process-observer"  # Lightning's name of the thread


def set_timeout(trainer: L.Trainer, minutes: float) -> None:
    """How long a process waits for the others in a collective. A timeout in the strategy's own arguments stays.

    Before the processes meet: meeting takes it over, and has to end within it, too.
    """
    if getattr(trainer.strategy, "_timeout", None) == default_pg_timeout:
        trainer.strategy._timeout = timedelta(minutes=minutes)  # type: ignore[attr-defined]


def outlive_children() -> None:
    """From now on a failed child does not have this process killed: it may be writing a checkpoint."""
    for thread in threading.enumerate():
        if thread.name == OBSERVER:
            thread._terminate_all = lambda: None  # type: ignore[attr-defined]


def end_children(trainer: L.Trainer) -> None:
    """Kills the processes that this one started. SIGTERM does not reach one that waits in a collective."""
    if (kill := getattr(trainer.strategy.launcher, "kill", None)) is not None:
        kill(signal.SIGKILL)


def explained(error: BaseException, trainer: L.Trainer) -> UserError | None:
    """A line in place of torch's traceback where waiting for the others has ended; None for any other error.

    gloo names whom it waited for by address alone. NCCL ends the process without an exception.
    """
    lost = isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)
    if trainer.world_size == 1 or not lost:
        return None
    waited = getattr(trainer.strategy, "_timeout", default_pg_timeout) / timedelta(minutes=1)
    late = f"has waited {waited:g} minutes for another one, not known which (--rank_timeout)"
    cause = late if "timed out" in str(error).lower() else "has lost another one, which has ended"
    return UserError(
        f"process {trainer.global_rank} of {trainer.world_size} {cause}; look above for what the others say. "
        "The same command goes on from the run's checkpoints/last.ckpt"
    )
