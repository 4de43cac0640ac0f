"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import logging
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.paper_tables import PAPER_MEASURES, PaperTable, paper_rows
from difftalk_pl.evaluation.table_runs import Run, notes, open_runs

if TYPE_CHECKING:
    from pandas import DataFrame, Series

log = logging.getLogger(__name__)

Format = Literal["markdown", "latex", "csv"]
NEVER_MARKED = ("ground truth", "codec", "shuffled audio")  # the first two stand on top
BOUNDS = NEVER_MARKED[:2]


class Measure(NamedTuple):
    """How a measure is printed. `better`: up, down, or the number that it should be close to; None: not ordered."""

    title: str
    better: Literal["up", "down"] | float | None
    digits: int


MEASURES = {
    "psnr": Measure("PSNR", "up", 2),
    "ssim": Measure("SSIM", "up", 3),
    "lpips": Measure("LPIPS", "down", 3),
    "mouth_psnr": Measure("mouth PSNR", "up", 2),
    "mouth_ssim": Measure("mouth SSIM", "up", 3),
    "mouth_lpips": Measure("mouth LPIPS", "down", 3),
    "sync_offset": Measure("sync offset", None, 2),
    "sync_confidence": Measure("sync confidence", "up", 3),
    "sync_distance": Measure("sync distance", "down", 3),
    "lmd": Measure("LMD", "down", 2),
    "identity": Measure("identity", "up", 3),
    "jitter_landmarks": Measure("landmark jitter", 1.0, 3),  # of the true video's: less is frozen, not better
    "silent_motion": Measure("silent motion", "down", 4),
    "jitter_pixels": Measure("pixel jitter", 1.0, 3),
    "opening_correlation": Measure("opening correlation", "up", 3),
}


class Style(NamedTuple):
    """What markdown and LaTeX write differently."""

    up: str
    down: str
    bold: str
    nothing: str
    special: str  # characters to escape


STYLES = {
    "markdown": Style(" ↑", " ↓", "**{}**", "–", r"([|*_<>`\\])"),
    "latex": Style(r" $\uparrow$", r" $\downarrow$", r"\textbf{{{}}}", "--", r"([&%$#_{}])"),
}


def table(
    runs: list[Path],
    format: Format = "markdown",
    paper: PaperTable | None = None,
    metrics: str = "",
    methods: str = "",
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
        methods: which, such as "ground truth,model". By default all.
        intervals: with the 95 % intervals over clips.
        out: the file to write; without it, the table goes to the terminal.
    """
    import pandas

    opened = open_runs(runs)
    rows = pandas.DataFrame([row for run in opened for row in _rows(run)])
    rows = _arranged(rows[rows.method.isin(_chosen("--methods", methods, rows.method))], len(opened) > 1)
    found = [name for name in MEASURES if rows[name].notna().any() or (paper and name in PAPER_MEASURES)]
    columns = _chosen("--metrics", metrics, MEASURES if metrics else found)
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


def _chosen(option: str, text: str, known: Any) -> list[str]:
    """Return the names in a list separated by commas, or all known ones. Raises UserError for an unknown name."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in names if name not in list(known)]:
        raise UserError(f"{option} {', '.join(unknown)}: unknown; there are {', '.join(dict.fromkeys(known))}")
    return names or list(dict.fromkeys(known))


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
    better, digits, covered = MEASURES[name].better, MEASURES[name].digits, rows[f"{name} clips"]
    competes = ~rows.method.isin(NEVER_MARKED) & rows[name].notna() & (better is not None)
    competes &= covered == covered.where(competes).groupby(rows.protocol).transform("max")
    values = rows[name].astype(float).round(digits).where(competes)
    if better != "up":
        values = -values if better == "down" else -(values - (better or 0)).abs().round(digits)
    groups = values.groupby(rows.protocol)
    return competes & (values == groups.transform("max")) & (groups.transform("count") > 1)


def _printed(rows: "DataFrame", columns: list[str], format: str, intervals: bool, remarks: list[str]) -> str:
    """Return the table in markdown or LaTeX with the notes below."""
    from pandas import DataFrame

    style = STYLES[format]
    cells = {name: [_escape(text, style) for text in rows[name]] for name in ("protocol", "title")}
    frame = DataFrame(cells).rename(columns={"title": "method"})
    if rows.protocol.nunique() == 1:
        frame = frame.drop(columns="protocol")
    for name in columns:
        title, better, digits = MEASURES[name]
        end = {"up": style.up, "down": style.down, None: ""}.get(better, " (to 1)")  # type: ignore[arg-type]
        ends = rows[f"{name} interval"] if intervals else [None] * len(rows)
        values = zip(rows[name].astype(float), ends, _best(rows, name))
        frame[title + end] = [_cell(value, interval, best, digits, style) for value, interval, best in values]
    counts = zip(rows.clips, rows.failed)
    frame["clips"] = ["" if math.isnan(n) else f"{n:.0f}" + f" ({bad:.0f} failed)" * (bad > 0) for n, bad in counts]
    if format == "latex":
        text = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (len(frame.columns) - 1))
        return text + "".join(f"\\par{{\\footnotesize {_escape(note, style)}}}\n" for note in remarks)
    align = ["left" if name in ("protocol", "method") else "right" for name in frame]
    text = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return text + "\n" + "".join(f"\n{_escape(note, style)}\n" for note in remarks)


def _cell(value: float, ends: Any, best: bool, digits: int, style: Style) -> str:
    if math.isnan(value):
        return style.nothing
    text = f"{value:.{digits}f}"
    text = style.bold.format(text) if best else text
    return text + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if isinstance(ends, list) else "")


def _csv(rows: "DataFrame", columns: list[str], intervals: bool) -> str:
    """Return all digits: a column for each measure and, if wanted, its interval's ends."""
    frame = rows[["protocol", "run", "method", "clips", "failed"]].astype({"clips": "Int64", "failed": "Int64"})
    for name in columns:
        frame[name] = rows[name]
        for place, end in enumerate(("low", "high") if intervals else ()):
            frame[f"{name}_{end}"] = rows[f"{name} interval"].str[place]
    return frame.to_csv(index=False)


def _escape(text: str, style: Style) -> str:
    text = text.replace("\\", r"\textbackslash ") if style.special.endswith("{}])") else text
    return re.sub(style.special, r"\\\1", text)
