"""The command `report`: ROOT/quality.csv with the measures of all clips, a page, and a filter by these measures."""

import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from difftalk_pl.data.clips import Clip, open_clips, read_index
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.measures import MEASURES, measure
from difftalk_pl.data.parallel import failure_reason, run_jobs
from difftalk_pl.errors import UserError
from difftalk_pl.files import replacing
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

TABLE = "quality.csv"
STYLE = "body { font: 14px sans-serif } table { border-collapse: collapse } td { padding: 2px 8px; text-align: right }"
PICTURE = '<a href="{0}.jpg"><img loading="lazy" width="160" src="{0}.jpg" alt="frames of {0}"></a>'


def report(data: Path, workers: int = 1) -> None:
    """Verify and measure every clip of a prepared dataset; write a table, a page and a contact sheet for each clip.

    The table is quality.csv in the dataset, whose columns data.keep filters by; the page is report/index.html.

    Args:
        data: the prepared dataset.
        workers: processes that measure.
    """
    clips, rows = open_clips(data), list[dict[str, object]]()
    with progress_bar() as bar:
        for clip, found in bar.track(run_jobs(measure, clips, workers), total=len(clips), description="measuring"):
            if isinstance(found, Exception):
                reason = str(found) if isinstance(found, UserError) else failure_reason(found)
                log.warning("%s: %s", clip.name, reason)
                rows.append({"name": clip.name, "reason": reason})
            else:
                rows.append({"name": clip.name, **found, "reason": ""})
    table = pd.DataFrame(rows, columns=["name", *MEASURES, "reason"]).sort_values("name")
    with replacing(data / TABLE) as file:
        table.to_csv(file, index=False, float_format="%.6g")
    log.info("%s", _write_page(data, table))
    if damaged := int((table.reason != "").sum()):
        raise UserError(
            f"{data}: {damaged} of {len(table)} clips are damaged: remove their folders and run prepare again"
        )


def _write_page(root: Path, table: pd.DataFrame) -> Path:
    """Write ROOT/report/index.html: the spread of every measure, and all clips, refused and damaged ones included."""
    spread = table[list(MEASURES)].astype(float).describe(percentiles=[0.05, 0.5, 0.95]).T.drop(columns=["mean", "std"])
    clips = pd.DataFrame(read_index(root)).merge(table, on="name", how="left", suffixes=("", "_found"))
    clips["reason"] += clips.pop("reason_found").fillna("")
    clips = clips.map(lambda value: escape(value) if isinstance(value, str) else value)
    clips.insert(0, "", clips.name.map(PICTURE.format).where(clips.status == "ok", ""))
    title, path = escape(root.resolve().name), root / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>{len(table)} clips of {table.seconds.sum() / 3600:.2f} h, {(table.reason != '').sum()} of them damaged</p>"
        f"{spread.map('{:.4g}'.format).assign(measure=MEASURES).to_html()}"
        f"{clips.to_html(index=False, escape=False, na_rep='–', float_format='{:.4g}'.format)}",
        encoding="utf-8",
    )
    return path


def keep_clips(root: Path, clips: Sequence[Clip], expression: str | None) -> list[Clip]:
    """Return the clips that fulfil an expression over the columns of quality.csv; all without an expression.

    Args:
        expression: as in pandas' `query`: "abs(yaw) < 35 and sharpness > 20". A comparison with an empty value fails.

    Raises:
        UserError: clips are not measured, none is left, the expression has an unknown column or is not a condition.
    """
    if expression is None:
        return list(clips)
    table = read_quality(root).set_index("name")
    if missing := [clip.name for clip in clips if clip.name not in table.index]:
        raise UserError(
            f"{root / TABLE}: {len(missing)} clips are not measured ({missing[0]}, …); run report --data {root}"
        )
    try:
        kept = table.query(expression, local_dict={}, global_dict={}).index
    except (SyntaxError, ValueError, TypeError, AttributeError, LookupError, NameError, NotImplementedError) as error:
        raise UserError(
            f"data.keep {expression!r} ({error}): expected a condition on {', '.join(MEASURES)}, such as yaw < 35"
        ) from error
    chosen = [clip for clip in clips if clip.name in kept]
    hours = sum(clip.frames for clip in chosen) / FPS / 3600
    log.info("keep %s: %d of %d clips (%.2f h)", expression, len(chosen), len(clips), hours)
    if clips and not chosen:
        raise UserError(f"data.keep {expression!r}: none of {len(clips)} clips fulfils it; relax it")
    return chosen


def read_quality(root: Path) -> pd.DataFrame:
    """Read quality.csv: name, the MEASURES, and reason (why a clip could not be measured, or empty)."""
    if not (path := root / TABLE).exists():
        raise UserError(f"{path}: missing; run report --data {root}")
    empty = {column: [""] for column in MEASURES}
    return pd.read_csv(path, dtype={"name": str, "reason": str}, keep_default_na=False, na_values=empty)
