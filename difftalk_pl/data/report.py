"""The command `report`: the clips of a prepared dataset, measured, in a table and on a page."""

import logging
from html import escape
from pathlib import Path

import pandas as pd

from difftalk_pl.data.clips import Clip, open_clips, read_index, verify
from difftalk_pl.data.overlay import write_overlay
from difftalk_pl.data.parallel import failure_reason, run_jobs
from difftalk_pl.data.quality import MEASURES, TABLE, measure, read_quality
from difftalk_pl.errors import UserError
from difftalk_pl.files import replacing
from difftalk_pl.progress import console, progress_bar

log = logging.getLogger(__name__)

STYLE = "body { font: 14px sans-serif } table { border-collapse: collapse } td { padding: 2px 8px; text-align: right }"
PICTURE = '<a href="{0}.jpg"><img loading="lazy" width="160" src="{0}.jpg" alt="frames of {0}"></a>'


def report(data: Path, workers: int = 1) -> None:
    """Verify and measure every clip of a prepared dataset; write a table, a page and a contact sheet for each clip.

    The table is quality.csv in the dataset, whose columns data.keep filters by; the page is report/index.html. Clips
    that have not changed since the last time are not measured again.

    Args:
        data: the prepared dataset.
        workers: processes that measure.
    """
    table = measure_clips(data, workers)
    console.print(f"{_summary(table)}\n{_statistics(table).to_string()}")
    log.info("%s", write_page(data, table))
    damaged = table[table.reason != ""]
    for row in damaged.itertuples():
        log.warning("%s: %s", row.name, row.reason)
    if len(damaged):
        raise UserError(f"{data}: {len(damaged)} of {len(table)} clips are damaged; prepare them again")


def measure_clips(root: Path, workers: int = 1) -> pd.DataFrame:
    """Measure the clips that are new or have changed and write quality.csv; a damaged clip has its reason there."""
    clips, before = open_clips(root), read_quality(root).set_index("name", drop=False)
    stamps = {clip.name: _stamp(clip) for clip in clips}
    rows = {name: dict(before.loc[name]) for name in before.index if before.stamp[name] == stamps.get(name)}
    missing = [clip for clip in clips if clip.name not in rows]
    try:
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=len(clips), completed=len(rows))
            for clip, found in run_jobs(measure_clip, missing, workers):
                result = {"reason": _reason(found)} if isinstance(found, Exception) else found
                rows[clip.name] = {"name": clip.name, "stamp": stamps[clip.name], **result}
                bar.advance(task)
    finally:
        table = pd.DataFrame([rows[name] for name in sorted(rows)], columns=before.columns)
        with replacing(root / TABLE) as file:
            table.to_csv(file, index=False, float_format="%.6g")
    return read_quality(root)


def measure_clip(clip: Clip) -> dict[str, float | str | None]:
    """Verify and measure a clip and draw its contact sheet."""
    verify(clip)
    write_overlay(clip, clip.root / "report" / f"{clip.name}.jpg")
    return dict(measure(clip))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else failure_reason(error)


def _stamp(clip: Clip) -> str:
    """Return when the clip's files were last changed."""
    return str(max((path.stat().st_mtime_ns for path in clip.folder.glob("*.*")), default=0))


def write_page(root: Path, table: pd.DataFrame) -> Path:
    """Write ROOT/report/index.html: the spread of every measure, and all clips, refused and damaged ones included."""
    clips = pd.DataFrame(read_index(root).values()).merge(table, on="name", how="left", suffixes=("", "_found"))
    clips["reason"] += clips.pop("reason_found").fillna("")
    clips = clips.drop(columns="stamp").map(lambda value: escape(value) if isinstance(value, str) else value)
    clips.insert(0, "", clips.name.map(PICTURE.format).where(clips.status == "ok", ""))
    title, path = escape(root.resolve().name), root / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>{_summary(table)}</p>{_statistics(table).to_html()}"
        f"{clips.to_html(index=False, escape=False, na_rep='–', float_format='{:.4g}'.format)}",
        encoding="utf-8",
    )
    return path


def _summary(table: pd.DataFrame) -> str:
    good = table[table.reason == ""]
    return f"{len(good)} clips of {good.seconds.sum() / 3600:.2f} h are measured, {len(table) - len(good)} are damaged."


def _statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Return number, minimum, percentiles and maximum of every measure, and what it is."""
    spread = table[list(MEASURES)].astype(float).describe(percentiles=[0.05, 0.5, 0.95]).T.drop(columns=["mean", "std"])
    return spread.map("{:.4g}".format).assign(measure=MEASURES)
