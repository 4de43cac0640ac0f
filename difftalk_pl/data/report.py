"""The command `report`: the clips of a prepared dataset, measured and shown on a page."""

import logging
import time
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.features.kinds import shared_threads
from difftalk_pl.data.files.pool import Event, Report, run_jobs
from difftalk_pl.data.lip_crops import SyncCrop
from difftalk_pl.data.quality.measures import MEASURES, Quality
from difftalk_pl.data.quality.page import write_page
from difftalk_pl.data.quality.table import FLUSH, hours, measure_dataset, spread, write_quality
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.sync import sync_scores
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.media.video import read_frames
from difftalk_pl.progress import progress_bar
from difftalk_pl.training.codec import choose_device

log = logging.getLogger(__name__)

CHUNK = 64  # frames in memory at a time


class SyncJob(NamedTuple):
    """A clip, and what judges it."""

    clip: Clip
    size: int
    syncnet: Path
    crop: SyncCrop
    device: str
    threads: int


def report(
    dataset: Path,
    workers: int = 1,
    syncnet: Path | None = None,
    sync_crop: SyncCrop = "face_crop",
    device: str = "auto",
) -> None:
    """Measure every clip of a prepared dataset, and write a table, a page and a contact sheet a clip.

    The table is quality.csv in the dataset, whose columns data.keep filters by; the page is report/index.html. Clips
    that have not changed since the last time are not measured again, so that a stopped run goes on where it was.

    Args:
        workers: processes that measure.
        syncnet: measure lip sync, too: the published syncnet_v2.model, or a checkpoint or folder of SyncNetTraining.
        sync_crop: what SyncNet sees of a frame, face_crop or whole_frame; as it was trained.
        device: of SyncNet: cpu, cuda, or auto.
    """
    judged_by = "" if syncnet is None else _name_of(syncnet, sync_crop)  # before any work: the file may be missing
    rows = measure_dataset(dataset, workers)
    if syncnet is not None:
        where = str(choose_device(device))
        jobs = [
            SyncJob(clip, read_dataset(dataset).size, syncnet, sync_crop, where, shared_threads(workers))
            for clip in open_clips(dataset)
            if clip.name in rows and not rows[clip.name].reason and rows[clip.name].sync_by != judged_by
        ]
        _judge(dataset, rows, jobs, judged_by, workers)
    page = write_page(dataset, rows)
    Console().print(_summary(rows.values()))
    log.info("%s", page)
    if damaged := sorted(row.name for row in rows.values() if row.reason):
        for name in damaged:
            log.warning("%s: not measured: %s", name, rows[name].reason)
        raise UserError(f"{dataset}: {len(damaged)} of {len(rows)} clips cannot be measured; run check {dataset}")


def run_job(job: SyncJob, report: Report) -> tuple[int, float] | str:
    """Runs in a worker: offset and confidence, or why there are none."""
    torch.set_num_threads(job.threads)
    judge = _open_judge(job.syncnet, job.crop, job.device)
    try:
        samples = job.clip.audio()
        if not samples.any():
            return "its sound is silence"
        stream = judge.open(np.array(job.clip.landmarks), job.clip.frames, job.size)
        frames = read_frames(job.clip.folder / "video.mp4")
        while chunk := list(islice(frames, CHUNK)):
            stream.add(np.stack(chunk))
        scores = sync_scores(*stream.finish(samples))
    except (UserError, OSError, ValueError) as error:
        return str(error)
    return scores.offset, scores.confidence


@lru_cache(maxsize=1)
def _open_judge(path: Path, crop: SyncCrop, device: str) -> SyncJudge:
    return SyncJudge(path, crop).to(torch.device(device))


def _name_of(path: Path, crop: SyncCrop) -> str:
    """What tells scores of one network from those of another."""
    return f"{SyncJudge(path, crop).describe()['weights'][:12]} {crop}"


def _judge(root: Path, rows: dict[str, Quality], jobs: list[SyncJob], judged_by: str, workers: int) -> None:
    """Enter lip sync into the rows and quality.csv. Clips that cannot be judged are told, and have none."""
    written = time.monotonic()
    try:
        with progress_bar() as bar:
            task = bar.add_task("lip sync", total=len(jobs))
            for event in run_jobs(run_job, jobs, workers):
                if not event.is_end:
                    continue
                name = jobs[event.job].clip.name
                rows[name] = _entered(rows[name], event, judged_by)
                bar.advance(task)
                if time.monotonic() - written > FLUSH:
                    write_quality(root, rows.values())
                    written = time.monotonic()
    finally:
        write_quality(root, rows.values())


def _entered(row: Quality, event: Event, judged_by: str) -> Quality:
    """A row with what came of judging it; where the process failed, the next run tries again."""
    if event.kind == "done" and not isinstance(event.value, str):
        offset, confidence = event.value
        return row._replace(sync_offset=offset, sync_confidence=confidence, sync_by=judged_by)
    log.warning("%s: no lip sync: %s", row.name, event.trouble or event.value)
    tried = judged_by if event.kind == "done" else ""
    return row._replace(sync_offset=None, sync_confidence=None, sync_by=tried)


def _summary(rows: Iterable[Quality]) -> Table:
    """The spread of every column over the clips."""
    good = [row for row in rows if not row.reason]
    heads = [Column(head, no_wrap=True) for head in ("column", "min", "5 %", "median", "95 %", "max", "unknown")]
    table = Table(*heads, "what it is", box=None, pad_edge=False)
    for column, meaning in MEASURES.items():
        found = spread(good, column)
        numbers = [f"{value:.4g}" for value in found.percentiles] or ["–"] * 5
        table.add_row(column, *numbers, str(found.unknown or ""), escape(meaning))
    table.caption = f"{len(good)} clips, {hours(good):.2f} h"
    table.caption_justify = "left"
    return table
