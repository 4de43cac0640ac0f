"""ROOT/report/index.html: what a dataset holds, as distributions and a table of all clips, refused ones included."""

import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from difftalk_pl.data.clips import ClipRow, read_rows
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.quality.measures import MEASURES, Quality
from difftalk_pl.data.quality.table import Spread, hours, measure_dataset, spread
from difftalk_pl.data.quality.template import PAGE

BINS, ACROSS, PANEL = 40, 4, (3.1, 1.9)  # of the histograms; panels in a row; inches of each
COLUMNS = ("name", "identity", "status", *MEASURES, "reason")


def write_report(root: Path, workers: int = 1) -> Path:
    """Measure the clips that are new or have changed, draw their pictures and write the page. Returns its path."""
    return write_page(root, measure_dataset(root, workers))


def write_page(root: Path, rows: Mapping[str, Quality]) -> Path:
    """Write ROOT/report/index.html, whole or not at all. rows: of the usable clips, by name."""
    listed = read_rows(root)
    refused = [row for row in listed.values() if row.status != "ok"]
    damaged = [row for row in rows.values() if row.reason]
    good = [row for row in rows.values() if not row.reason]
    content = {
        "columns": COLUMNS,
        "titles": [MEASURES.get(column, column) for column in COLUMNS],
        "rows": [_row(row, rows.get(row.name)) for row in listed.values()],
    }
    page = Template(PAGE).substitute(
        title=escape(f"{root.resolve().name}: {len(rows)} clips"),
        summary=escape(_summary(good, damaged, refused)),
        columns="".join(_line(column, spread(good, column)) for column in MEASURES),
        plots=histograms(good),
        data=json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    target = root / "report" / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        aside.write_text(page, encoding="utf-8")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def histograms(rows: Sequence[Quality]) -> str:
    """One inline SVG with a panel for every column that has values; counts are clips."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    known = {column: values for column in MEASURES if (values := _values(rows, column))}
    if not known:
        return "<p>Nothing is measured.</p>"
    down = math.ceil(len(known) / ACROSS)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "difftalk_pl", "font.size": 8}):
        figure = Figure(figsize=(ACROSS * PANEL[0], down * PANEL[1]), layout="constrained")
        panels = list(figure.subplots(down, ACROSS, squeeze=False).flat)
        for panel, (column, values) in zip(panels, known.items()):
            panel.hist(values, bins=min(BINS, max(5, math.isqrt(len(values)) * 2)), color="#2a6fb0")
            panel.set_title(column, fontsize=9)
            panel.yaxis.get_major_locator().set_params(integer=True)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels[len(known) :]:
            panel.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]


def _values(rows: Iterable[Quality], column: str) -> list[float]:
    return [value for row in rows if (value := getattr(row, column)) is not None]


def _summary(good: Sequence[Quality], damaged: Sequence[Quality], refused: Sequence[ClipRow]) -> str:
    parts = [f"{len(good)} clips of {hours(good):.2f} h are usable, {len(refused)} are refused"]
    if damaged:
        parts.append(f"{len(damaged)} cannot be measured and should be looked at with the command check")
    return "; ".join(parts) + ". Click a column to sort by it, and a picture to see the clip."


def _line(column: str, found: Spread) -> str:
    numbers = [f"{value:.4g}" for value in found.percentiles] or ["–"] * 5
    cells = "".join(f"<td>{number}</td>" for number in [*numbers, str(found.unknown)])
    return f'<tr><td class="text">{column}</td>{cells}<td class="text reason">{escape(MEASURES[column])}</td></tr>'


def _row(clip: ClipRow, quality: Quality | None) -> list[Any]:
    """In the order of COLUMNS."""
    quality = quality or Quality(clip.name)
    status = "damaged" if clip.status == "ok" and quality.reason else clip.status
    found = quality._asdict()
    if status != "refused" and found["seconds"] is None:
        found["seconds"] = clip.frames / FPS
    numbers = [None if found[column] is None else float(f"{found[column]:.6g}") for column in MEASURES]
    return [clip.name, clip.identity, status, *numbers, quality.reason or clip.reason]
