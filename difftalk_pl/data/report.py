"""The command `report`: the clips of a prepared dataset, measured, in a table and on a page."""

import logging
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from difftalk_pl.data.clips import Clip, open_clips, read_index, verify
from difftalk_pl.data.overlay import write_overlay
from difftalk_pl.data.parallel import failure_reason, run_jobs
from difftalk_pl.data.quality import MEASURES, TABLE, measure, read_quality
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.files import replacing
from difftalk_pl.progress import console, progress_bar

log = logging.getLogger(__name__)

STYLE = (
    "body { font: 14px sans-serif } table { border-collapse: collapse } th, td { padding: 2px 8px; text-align: right }"
)
PICTURE = '<a href="{0}.jpg"><img loading="lazy" width="160" src="{0}.jpg" alt="frames of {0}"></a>'


def report(data: Path, workers: int = 1) -> None:
    """Verify and measure every clip of a prepared dataset; write a table, a page and a contact sheet for each clip.

    The table is quality.csv in the dataset, whose columns data.keep filters by; the page is report/index.html. Clips
    that have not changed since the last time are not measured again.

    Args:
        data: the prepared dataset.
        workers: processes that measure.
    """
    clips = open_clips(data)
    table = measure_clips(data, clips, workers)
    page = write_page(data, table)
    console.print(f"{_summary(table)}\n{_statistics(table).to_string()}")
    log.info("%s", page)
    damaged = table[table.reason != ""]
    for name, reason in zip(damaged.name, damaged.reason):
        log.warning("%s: %s", name, reason)
    if len(damaged):
        raise UserError(f"{data}: {len(damaged)} of {len(table)} clips are damaged; prepare them again")


def measure_clips(root: Path, clips: list[Clip], workers: int = 1) -> pd.DataFrame:
    """Measure the clips that are new or have changed and write quality.csv; a damaged clip has its reason there."""
    before = read_quality(root).set_index("name", drop=False)
    rows = {clip.name: dict(before.loc[clip.name]) for clip in clips if _is_current(clip, before)}
    missing = [clip for clip in clips if clip.name not in rows]
    try:
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=len(clips), completed=len(rows))
            for clip, result in run_jobs(measure_clip, missing, workers):
                failed = isinstance(result, Exception)
                rows[clip.name] = {"name": clip.name, "reason": failure_reason(result)} if failed else result
                bar.advance(task)
    finally:
        table = pd.DataFrame([rows[name] for name in sorted(rows)], columns=before.columns)
        with replacing(root / TABLE) as file:
            table.to_csv(file, index=False, float_format="%.6g")
    return read_quality(root)


def measure_clip(clip: Clip) -> dict[str, Any]:
    """Verify and measure a clip and draw its contact sheet; return its row of quality.csv."""
    row = {"name": clip.name, "reason": "", "stamp": _stamp(clip)}
    try:
        verify(clip)
        write_overlay(clip, clip.root / "report" / f"{clip.name}.jpg")
        return row | measure(clip)
    except (UserError, OSError, ValueError, LookupError) as error:
        return row | {"reason": reason_of(error)}


def _stamp(clip: Clip) -> str:
    """Return what changes when a clip is prepared again: when its files were written."""
    files = (path for path in clip.folder.glob("*.*") if path.is_file())
    return str(max((path.stat().st_mtime_ns for path in files), default=0))


def _is_current(clip: Clip, table: pd.DataFrame) -> bool:
    return clip.name in table.index and table.loc[clip.name, "stamp"] == _stamp(clip)


def write_page(root: Path, table: pd.DataFrame) -> Path:
    """Write ROOT/report/index.html: the spread of every measure, and all clips, refused and damaged ones included."""
    index = pd.DataFrame(read_index(root).values())
    clips = index.merge(table.drop(columns="stamp"), on="name", how="left", suffixes=("", "_measured"))
    clips["reason"] = clips.reason.where(clips.reason != "", clips.pop("reason_measured")).fillna("")
    names = clips.name.map(escape)
    for column in ("name", "identity", "source", "reason"):
        clips[column] = clips[column].map(escape)
    clips.insert(0, "", names.map(PICTURE.format).where(clips.status == "ok", ""))
    title = escape(root.resolve().name)
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>",
        f"<p>{_summary(table)}</p>",
        _statistics(table).to_html(na_rep="–"),
        clips.to_html(index=False, escape=False, na_rep="–", float_format="{:.4g}".format),
    ]
    path = root / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _summary(table: pd.DataFrame) -> str:
    good = table[table.reason == ""]
    return f"{len(good)} clips of {good.seconds.sum() / 3600:.2f} h are measured, {len(table) - len(good)} are damaged."


def _statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Return minimum, percentiles and maximum of every measure, and what it is."""
    spread = table[list(MEASURES)].astype(float).describe(percentiles=[0.05, 0.5, 0.95]).T.drop(columns=["mean", "std"])
    return spread.map("{:.4g}".format).assign(measure=MEASURES)
