"""The command `check`: what is damaged, does not fit together or does not belong in a prepared dataset."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from difftalk_pl.data.checking.clip_faults import Fault, Findings, Job, check_clip
from difftalk_pl.data.checking.dataset_faults import folder_faults, lacking, misfits, open_lists, unsummed
from difftalk_pl.data.checking.repair import repair_faults
from difftalk_pl.data.clips import Clip
from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.files.pool import run_jobs
from difftalk_pl.data.latents.cache import open_cache
from difftalk_pl.data.prepare import CLAIMS
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

SHOWN = 1000  # lines of the table


def check(dataset: Path, deep: bool = False, repair: bool = False, workers: int = 1) -> None:
    """Hold every file of a prepared dataset against its format and against the others, and say what helps.

    Finds files that are cut short or damaged, rows without clips and clips without rows, features and latents that do
    not fit, what killed commands left behind, and files that belong to no dataset, which are told and left alone. The
    exit code is 1 where something is wrong that is not repaired.

    Args:
        deep: decode every frame, read everything and compare it with its SHA-256, which takes as long as reading the
            whole dataset.
        repair: remove what can be made again: what killed commands left, damaged features and latents, and damaged
            clips whose source is there and has not changed and whose folder holds nothing of anybody else's.
            Nothing else is touched.
        workers: processes that look at clips.
    """
    size, rows, faults = open_lists(dataset)
    if rows and not (dataset / "clips").is_dir():
        raise UserError(f"{dataset / 'clips'}: not there, and clips.csv has {len(rows)} clips; mount or restore it")
    busy = Claims(dataset / CLAIMS).busy()
    usable = {row.name: Clip(dataset, row.name, row.frames) for row in rows.values() if row.status == "ok"}
    named = [open_cache(path) for path in sorted((dataset / "latents").glob("[!.]*"))]
    caches = tuple(cache for cache in named if cache is not None and cache.is_described())
    jobs = {name: Job(clip, size, caches, deep) for name, clip in usable.items() if name not in busy}
    found = _look(list(jobs.values()), workers)
    faults += found.faults
    faults += misfits(dataset, found.shapes, usable)
    faults += lacking(dataset, found.shapes, caches, usable)
    faults += unsummed(usable.values()) if deep else ()
    if rows:
        faults += folder_faults(dataset, rows, busy)
    done = repair_faults(dataset, rows, faults, lambda name: _is_broken(jobs[name])) if repair else {}
    if faults:
        Console().print(_table(dataset, faults, done))
    log.info("%s: %d clips looked at%s", dataset, len(usable), "" if deep else ", without --deep")
    if wrong := [fault for fault in faults if not fault.harmless and fault not in done]:
        mendable = not repair and any(fault.mend for fault in wrong)
        hint = "; --repair removes what can be made again" if mendable else ""
        raise UserError(f"{dataset}: faults: {len(wrong)}, each with its remedy in the table above{hint}")


def _is_broken(job: Job) -> bool:
    return any(fault.mend == "remake" for fault in check_clip(job, lambda done, total: None).faults)


def _look(jobs: list[Job], workers: int) -> Findings:
    found = Findings([], {})
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(jobs))
        for event in run_jobs(check_clip, jobs, workers):
            if not event.is_end:
                continue
            bar.advance(task)
            if event.kind == "done":
                found.faults.extend(event.value.faults)
                found.shapes.update(event.value.shapes)
                continue
            clip, why = jobs[event.job].clip, f"it cannot be looked at: {event.trouble}"
            found.faults.append(Fault("damaged", clip.folder, why, "look at it, and prepare the clip again"))
    return found


def _table(root: Path, faults: Sequence[Fault], done: Mapping[Fault, str]) -> Table:
    """Faults first, what is merely told after them."""
    table = Table("what", Column("file", overflow="fold"), "why", "remedy", box=None, pad_edge=False)
    for fault in sorted(faults, key=lambda fault: (fault.harmless, fault.what, fault.file))[:SHOWN]:
        place = fault.file.relative_to(root) if fault.file.is_relative_to(root) else fault.file
        remedy = f"[green]{escape(done[fault])}[/]" if fault in done else escape(fault.remedy)
        what = f"[dim]{fault.what}[/]" if fault.harmless else fault.what
        table.add_row(what, escape(str(place)), escape(fault.why), remedy)
    if len(faults) > SHOWN:
        table.caption = f"and {len(faults) - SHOWN} more"
    return table
