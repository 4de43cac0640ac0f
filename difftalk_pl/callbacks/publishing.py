"""Numbers of an evaluation on every logger: one key for each method and measure, and a table of the clips on W&B."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger


def log_numbers(trainer: L.Trainer, side: str, methods: Mapping[str, Any]) -> None:
    """SIDE/METHOD/MEASURE for every mean over clips that is a number."""
    numbers = {
        f"{side}/{method.replace(' ', '_')}/{measure}": value
        for method, summary in methods.items()
        for measure, value in summary["overall"].items()
        if value is not None
    }
    if numbers:
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=log_step(trainer))


def log_clip_table(trainer: L.Trainer, side: str, methods: Mapping[str, Any]) -> None:
    """SIDE/clips on W&B: a row for each clip and method, failures with their reasons."""
    columns, rows = clip_rows(methods)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(f"{side}/clips", columns=columns, data=rows, step=log_step(trainer))


def log_step(trainer: L.Trainer) -> int:
    """The step under which Lightning logs what `self.log` gave it, so that all of an evaluation stands in one row."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def clip_rows(methods: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of that table."""
    measures = list(dict.fromkeys(name for found in methods.values() for name in found["overall"]))
    rows: list[list[Any]] = []
    for method, found in methods.items():
        for clip, values in found["per_clip"].items():
            reasons = {why[clip] for why in found["failed"].values() if clip in why}
            rows.append([clip, method, values["frames"], *(values.get(name) for name in measures), "; ".join(reasons)])
    return ["clip", "method", "frames", *measures, "failed"], rows
