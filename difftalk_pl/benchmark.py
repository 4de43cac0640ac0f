"""The command `benchmark`: speed and memory of an experiment's training steps and of its loader."""

import resource
import tempfile
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console

from difftalk_pl.cli import build_cli


def benchmark(experiments: list[Path], steps: int = 20, warmup: int = 5, data: Path | None = None) -> None:
    """Train an experiment for a few steps in a temporary folder and print what they take.

    Printed are samples a second, milliseconds of a step by part (waiting for data, forward, backward, optimizer), the
    peak memory of the first rank, and how many windows a second its loader gives by itself.

    Args:
        experiments: the YAML of the experiment, and of overrides.
        steps: to measure.
        warmup: steps before these.
        data: a prepared dataset in place of the experiment's.
    """
    with tempfile.TemporaryDirectory() as run:
        options = {
            "run": run,
            "ckpt_path": "null",
            "trainer.max_steps": steps + warmup,
            "trainer.limit_val_batches": 0,
            "trainer.logger": "false",
            "trainer.enable_checkpointing": "false",
            "trainer.callbacks": f"[{{class_path: {__name__}.StepTimes, init_args: {{warmup: {warmup}}}}}]",
        }
        if data is not None:
            options["data.root"] = data
        configs = [word for path in experiments for word in ("-c", str(path))]
        cli = build_cli(["fit", *configs, *(f"--{key}={value}" for key, value in options.items())])
        if cli.trainer.is_global_zero:
            Console().print("\n".join(_describe(cli.trainer, cli.datamodule, steps)), highlight=False)


class StepTimes(L.Callback):
    """Adds up the seconds of the parts of training steps.

    Args:
        warmup: steps that are not counted.
    """

    def __init__(self, warmup: int = 5) -> None:
        self.warmup, self.steps = warmup, 0
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def _end(self, part: str) -> None:
        """Count the time since the end of the last part."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.steps >= self.warmup:
            self.seconds[part] += now - self._last
        self._last = now

    def on_train_batch_start(self, *_: Any) -> None:
        self._end("data")

    def on_before_backward(self, *_: Any) -> None:
        self._end("forward")

    def on_after_backward(self, *_: Any) -> None:
        self._end("backward")

    def on_train_batch_end(self, *_: Any) -> None:
        self._end("optimizer")
        self.steps += 1


def _describe(trainer: L.Trainer, data: Any, batches: int) -> list[str]:
    (times,) = (callback for callback in trainer.callbacks if isinstance(callback, StepTimes))  # type: ignore[attr-defined]
    steps, total = max(times.steps - times.warmup, 1), sum(times.seconds.values())
    size, gib = data.loading.batch_size, 2**30
    lines = [f"training       {size * trainer.world_size * steps / total:10.1f} samples/s"]
    lines += [f"  {part:12} {1000 * seconds / steps:10.1f} ms a step" for part, seconds in times.seconds.items()]
    lines += [f"memory         {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / gib:10.2f} GiB at most"]
    if torch.cuda.is_available():
        lines += [f"GPU memory     {torch.cuda.max_memory_allocated() / gib:10.2f} GiB at most"]
    loader = iter(data.train_dataloader())
    next(loader)  # workers start
    start = time.perf_counter()
    count = sum(1 for _ in islice(loader, batches)) * size
    return [*lines, f"loader         {count / (time.perf_counter() - start):10.1f} windows/s"]
