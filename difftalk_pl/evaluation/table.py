"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import logging
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.paper_tables import PAPER_MEASURES, PaperTable, paper_rows
from difftalk_pl.evaluation.table_runs import Run, notes, open_runs

if TYPE_CHECKING:
    from pandas import DataFrame, Series

log = logging.getLogger(__name__)

Format = Literal["markdown", "latex", "csv"]
NEVER_MARKED = ("ground truth", "codec", "shuffled audio")  # the first two stand on top
BOUNDS = NEVER_MARKED[:2]


Better = Literal["up", "down", "1"] | None  # "1": closest to 1; None: not ordered
MEASURES: dict[str, tuple[str, Better, int]] = {  # title, better, digits
    "psnr": ("PSNR", "up", 2),
    "ssim": ("SSIM", "up", 3),
    "lpips": ("LPIPS", "down", 3),
    "mouth_psnr": ("mouth PSNR", "up", 2),
    "mouth_ssim": ("mouth SSIM", "up", 3),
    "mouth_lpips": ("mouth LPIPS", "down", 3),
    "sync_offset": ("sync offset", None, 2),
    "sync_confidence": ("sync confidence", "up", 3),
    "sync_distance": ("sync distance", "down", 3),
    "lmd": ("LMD", "down", 2),
    "identity": ("identity", "up", 3),
    "jitter_landmarks": ("landmark jitter", "1", 3),  # of the true video's: less is frozen, not better
    "silent_motion": ("silent motion", "down", 4),
    "jitter_pixels": ("pixel jitter", "1", 3),
    "opening_correlation": ("opening correlation", "up", 3),
}


STYLES: dict[str, dict[Any, str]] = {  # what markdown and LaTeX write differently; special: characters to escape
    "markdown": {"up": " ↑", "down": " ↓", "bold": "**{}**", "dash": "–", "special": r"([|*_<>`\\])"},
    "latex": {
        "up": r" $\uparrow$",
        "down": r" $\downarrow$",
        "bold": r"\textbf{{{}}}",
        "dash": "--",
        "special": r"([&%$#_{}])",
    },
}


def table(
    runs: list[Path],
    format: Format = "markdown",
    paper: PaperTable | None = None,
    metrics: str = "",
    intervals: bool = False,
    out: Path | None = None,
) -> None:
    """Print the results of runs as one table: methods in rows, measures in columns, the best value of a column bold.

    Ground truth and codec stand on top; they and the control with shuffled audio are never marked. Only rows of one
    protocol, over the same clips, compete; a note names what differs. A row whose mean leaves out clips that others
    cover is not marked either. What was not measured is a dash, in csv an empty field.

    Args:
        runs: folders with a results.json, or such files.
        format: markdown, latex (needs the package booktabs), or csv (all digits, no marks).
        paper: append the rows of this table of the paper, or of all. Its protocol is another one.
        metrics: which, separated by commas, such as psnr,ssim. By default all there are.
        intervals: with the 95 % intervals over clips.
        out: the file to write; without it, the table goes to the terminal.
    """
    import pandas

    opened = open_runs(runs)
    rows = pandas.DataFrame([row for run in opened for row in _rows(run)])
    rows = _arranged(rows, len(opened) > 1)
    found = [name for name in MEASURES if rows[name].notna().any() or (paper and name in PAPER_MEASURES)]
    columns = metrics.replace(" ", "").split(",") if metrics else found
    if unknown := [name for name in columns if name not in MEASURES]:
        raise UserError(f"--metrics {', '.join(unknown)}: unknown; there are {', '.join(MEASURES)}")
    if paper:
        rows = pandas.concat([rows, pandas.DataFrame(paper_rows(paper))], ignore_index=True)
    remarks = notes(opened)
    text = _csv(rows, columns, intervals) if format == "csv" else _printed(rows, columns, format, intervals, remarks)
    for note in remarks:
        log.warning("%s", note)
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    log.info("%s: %d rows", out, len(rows))


def _rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for every method: its means, intervals, and how many clips each mean covers."""
    rows = []
    for method, found in run.content["methods"].items():
        row: dict[str, Any] = {"protocol": run.group, "run": run.name, "method": method}
        clips = found["per_clip"].values()
        for name in MEASURES:
            row[name], row[f"{name} interval"] = found["overall"].get(name), found.get("interval", {}).get(name)
            row[f"{name} clips"] = sum(clip.get(name) is not None for clip in clips)
        row["failed"] = sum(all(clip.get(name) is None for name in MEASURES) for clip in clips)
        rows.append({**row, "clips": len(clips) - row["failed"]})
    return rows


def _arranged(rows: "DataFrame", several_runs: bool) -> "DataFrame":
    """Put ground truth and codec on top of their protocol; where several runs have the same numbers, once."""
    same = ["protocol", "method", *MEASURES]
    shared = rows.method.isin(BOUNDS) & rows.duplicated(same, keep=False)
    titles = rows.method.where(shared | (not several_runs), rows.run + ": " + rows.method)
    rows = rows.assign(title=titles, order=[BOUNDS.index(one) if one in BOUNDS else 2 for one in rows.method])
    rows = rows[~(shared & rows.duplicated(same))]
    rows = rows.assign(group=rows.groupby("protocol", sort=False).ngroup())
    return rows.sort_values(["group", "order"], kind="stable")


def _best(rows: "DataFrame", name: str) -> "Series":
    """Return which rows have the best printed value within their protocol, among means over the most clips."""
    (_, better, digits), covered = MEASURES[name], rows[f"{name} clips"]
    competes = ~rows.method.isin(NEVER_MARKED) & rows[name].notna() & (better is not None)
    competes &= covered == covered.where(competes).groupby(rows.protocol).transform("max")
    values = rows[name].astype(float).round(digits).where(competes)
    if better != "up":
        values = -values if better == "down" else -(values - 1).abs().round(digits)
    groups = values.groupby(rows.protocol)
    return competes & (values == groups.transform("max")) & (groups.transform("count") > 1)


def _printed(rows: "DataFrame", columns: list[str], format: str, intervals: bool, remarks: list[str]) -> str:
    """Return the table in markdown or LaTeX with the notes below."""
    from pandas import DataFrame

    style = STYLES[format]
    frame = DataFrame({"protocol": rows.protocol, "method": rows.title}).map(lambda text: _escape(text, style))
    if rows.protocol.nunique() == 1:
        frame = frame.drop(columns="protocol")
    for name in columns:
        title, better, digits = MEASURES[name]
        ends = rows[f"{name} interval"] if intervals else [None] * len(rows)
        values = zip(rows[name].astype(float), ends, _best(rows, name))
        arrow = style.get(better, f" (to {better})" if better else "")
        frame[title + arrow] = [_cell(value, interval, best, digits, style) for value, interval, best in values]
    counts = zip(rows.clips, rows.failed)
    frame["clips"] = ["" if math.isnan(n) else f"{n:.0f}" + f" ({bad:.0f} failed)" * (bad > 0) for n, bad in counts]
    if format == "latex":
        text = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (len(frame.columns) - 1))
        return text + "".join(f"\\par{{\\footnotesize {_escape(note, style)}}}\n" for note in remarks)
    align = ["left" if name in ("protocol", "method") else "right" for name in frame]
    text = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return text + "\n" + "".join(f"\n{_escape(note, style)}\n" for note in remarks)


def _cell(value: float, ends: Any, best: bool, digits: int, style: dict[Any, str]) -> str:
    if math.isnan(value):
        return style["dash"]
    text = f"{value:.{digits}f}"
    text = style["bold"].format(text) if best else text
    return text + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if isinstance(ends, list) else "")


def _csv(rows: "DataFrame", columns: list[str], intervals: bool) -> str:
    """Return all digits: a column for each measure and, if wanted, its interval's ends."""
    frame = rows[["protocol", "run", "method", "clips", "failed"]].astype({"clips": "Int64", "failed": "Int64"})
    for name in columns:
        frame[name] = rows[name]
        for place, end in enumerate(("low", "high") if intervals else ()):
            frame[f"{name}_{end}"] = rows[f"{name} interval"].str[place]
    return frame.to_csv(index=False)


def _escape(text: str, style: dict[Any, str]) -> str:
    return re.sub(style["special"], r"\\\1", text if "`" in style["special"] else text.replace("\\", "/"))
