"""What `table` shows and how: columns, marks, and the text of markdown, LaTeX and csv."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Format = Literal["markdown", "latex", "csv"]
NOTHING = "–"
SYNC = ("sync_offset", "sync_confidence")  # share a column, as in the paper


class Measure(NamedTuple):
    """How a measure is printed. `better`: higher, lower, or the number that it should be close to; None: no order.

    A mean of offsets is no merit: clips that are early and clips that are late make 0.
    """

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
    "jitter_pixels": Measure("pixel jitter", 1.0, 3),
    "silent_motion": Measure("silent motion", "down", 4),
    "opening_correlation": Measure("opening correlation", "up", 3),
}


class Row(NamedTuple):
    """A method of a run. `clips` counts all of them, `unscored` those of which nothing was measured; `covered` has the
    clips that each measure's mean is over."""

    run: str
    method: str
    values: dict[str, float | None]
    ranked: bool
    bounds: dict[str, list[float] | None] = {}
    undefined: dict[str, int] = {}
    failed: dict[str, dict[str, str]] = {}
    clips: int | None = None
    unscored: int = 0
    covered: dict[str, frozenset[tuple[str, int]]] = {}

    @classmethod
    def read(cls, run: str, method: str, found: dict[str, Any], ranked: bool) -> "Row":
        """From a method of results.json; the parts that format 1 lacks are empty."""
        clips = found["per_clip"]
        silent = [all(clip.get(name) is None for name in MEASURES) for clip in clips.values()]
        covered = {
            name: frozenset(
                (clip, one.get("frames", 0)) for clip, one in clips.items() if _finite(one.get(name)) is not None
            )
            for name in MEASURES
        }
        values = {name: _finite(found["overall"].get(name)) for name in MEASURES}
        bounds, undefined, failed = (found.get(key, {}) for key in ("interval", "undefined", "failed"))
        return cls(run, method, values, ranked, bounds, undefined, failed, len(silent), sum(silent), covered)

    def title(self, several_runs: bool) -> str:
        return f"{self.run}: {self.method}" if several_runs and self.run else self.method

    def same_numbers(self, other: "Row") -> bool:
        return (self.method, self.values, self.clips) == (other.method, other.values, other.clips)

    def left_out(self, measure: str) -> list[str]:
        """What its mean does not cover: "failed on 1 of 9 clips, …", "undefined on 2 of 9 clips"."""
        reasons, found = self.failed.get(measure, {}), []
        if reasons:
            clip, reason = next(iter(reasons.items()))
            found.append(f"failed on {len(reasons)} of {self.clips} clips, {clip}: {reason}")
        others = self.undefined.get(measure, 0) - len(reasons)
        if others > 0 and self.values.get(measure) is not None:
            found.append(f"undefined on {others} of {self.clips} clips")
        return found


class Group(NamedTuple):
    """Rows that can be compared with each other."""

    title: str
    rows: list[Row]


class Table(NamedTuple):
    """All there is to print. A column is the measures that share it."""

    columns: list[tuple[str, ...]]
    groups: list[Group]
    notes: list[str]
    intervals: bool
    several_runs: bool


class Style(NamedTuple):
    """What markdown and LaTeX write differently."""

    best: str
    second: str
    nothing: str
    up: str
    down: str
    to: str
    escape: Callable[[str], str]


def _escape_markdown(text: str) -> str:
    return " ".join(re.sub(r"([|*_<>`\\])", r"\\\1", text).split())


LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "[": "{[}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\ldots{}",
    "→": r"$\to$",
}


def _escape_latex(text: str) -> str:
    escaped = re.sub(r"[\\\[~^&%$#_{}<>|…→]", lambda sign: LATEX_SIGNS.get(sign[0], "\\" + sign[0]), text)
    return " ".join(escaped.split())


MARKDOWN = Style("**{}**", "<u>{}</u>", NOTHING, " ↑", " ↓", " → {:g}", _escape_markdown)
LATEX = Style(
    r"\textbf{{{}}}", r"\underline{{{}}}", "--", r" $\uparrow$", r" $\downarrow$", r" $\to$ {:g}", _escape_latex
)


def marks(rows: list[Row], name: str) -> list[str | None]:
    """Of each row "best", "second" or nothing. Equally good printed values share a mark; only means over the same clips
    compete, and there are none where nothing does."""
    measure, coverage = MEASURES[name], _coverage(rows, name)
    found = {
        place: _badness(_rounded(value, measure), measure)
        for place, row in enumerate(rows)
        if _competes(row, name) and row.covered[name] == coverage and (value := row.values[name]) is not None
    }
    order = dict(zip(sorted({*found.values()}), ("best", "second"))) if len(found) > 1 else {}
    return [order.get(found[place]) if place in found else None for place in range(len(rows))]


def uncompared(rows: list[Row], row: Row, name: str) -> list[str]:
    """Why a row has no part in the marks of its group: "covers 3 of 4 clips"; empty where nothing is in its way."""
    coverage = _coverage(rows, name)
    if not _competes(row, name) or row.covered[name] == coverage:
        return []
    others = (
        ""
        if coverage is not None and len(row.covered[name]) < len(coverage)
        else ", not the same ones or frames as other rows"
    )
    return [f"covers {len(row.covered[name])} of {row.clips} clips{others}"]


def _competes(row: Row, name: str) -> bool:
    return row.ranked and row.values.get(name) is not None and MEASURES[name].better is not None


def _coverage(rows: list[Row], name: str) -> frozenset[tuple[str, int]] | None:
    """The clips, and frames of each, over which rows compete: the most that a mean covers. Of several such sets the one
    that most rows share; None where that does not choose, so that nobody wins by the clips that he failed on."""
    counted = Counter(row.covered[name] for row in rows if _competes(row, name))
    ranked = {clips: (len(clips), sum(frames for _, frames in clips), count) for clips, count in counted.items()}
    ranks = sorted(ranked.values(), reverse=True)
    if not ranks or ranks[1:2] == ranks[:1]:
        return None
    return next(clips for clips, rank in ranked.items() if rank == ranks[0])


def _rounded(value: float, measure: Measure) -> float:
    return round(value, measure.digits)


def _badness(value: float, measure: Measure) -> float:
    if isinstance(measure.better, float):
        return _rounded(abs(value - measure.better), measure)
    return -value if measure.better == "up" else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _heading(column: tuple[str, ...], style: Style) -> str:
    if column == SYNC:
        return "SyncNet: offset / confidence" + style.up
    title, better, _ = MEASURES[column[0]]
    if better is None:
        return title
    return title + (
        style.to.format(better) if isinstance(better, float) else {"up": style.up, "down": style.down}[better]
    )


def _part(row: Row, name: str, table: Table, mark: str | None, style: Style) -> str:
    """One number of a cell."""
    value, measure = row.values.get(name), MEASURES[name]
    if value is None:
        return style.nothing
    digits = 0 if name == "sync_offset" and value == int(value) else measure.digits
    text = {"best": style.best, "second": style.second}.get(str(mark), "{}").format(f"{value:.{digits}f}")
    if table.intervals and (bounds := row.bounds.get(name)) is not None:
        text += f" [{bounds[0]:.{measure.digits}f}, {bounds[1]:.{measure.digits}f}]"
    return text


def _lines(table: Table, style: Style) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of cells of each group."""
    result = []
    for group in table.groups:
        marked = {name: marks(group.rows, name) for column in table.columns for name in column}
        cells = [
            [
                style.escape(row.title(table.several_runs)),
                *(
                    " / ".join(_part(row, name, table, marked[name][place], style) for name in column)
                    for column in table.columns
                ),
                _clips(row, style),
            ]
            for place, row in enumerate(group.rows)
        ]
        result.append((style.escape(group.title), cells))
    return result


def _clips(row: Row, style: Style) -> str:
    if row.clips is None:
        return style.nothing
    return f"{row.clips - row.unscored} ({row.unscored} failed)" if row.unscored else str(row.clips)


def markdown(table: Table) -> str:
    """As GitHub shows it, notes below."""
    head = ["method", *(_heading(column, MARKDOWN) for column in table.columns), "clips"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for title, cells in _lines(table, MARKDOWN):
        rows += [[f"*{title}*", *[""] * (len(head) - 1)]] if title else []
        rows += cells
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return text + "".join(f"\n{_escape_markdown(note)}\n" for note in table.notes)


def latex(table: Table) -> str:
    """A tabular with the rules of booktabs, notes below it."""
    head = ["method", *(_heading(column, LATEX) for column in table.columns), "clips"]
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\"]
    for title, cells in _lines(table, LATEX):
        lines.append(r"\midrule")
        lines += [rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{title}}}}} \\"] if title else []
        lines += [" & ".join(row) + r" \\" for row in cells]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {_escape_latex(note)}}}" for note in table.notes]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """All digits; a column for each measure and, if wanted, its bounds."""
    names = [name for column in table.columns for name in column]
    head = ["group", "run", "method", "clips", "failed"]
    for name in names:
        head += [name, f"{name}_low", f"{name}_high"] if table.intervals else [name]
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    for group in table.groups:
        for row in group.rows:
            unscored = None if row.clips is None else row.unscored
            fields: list[Any] = [group.title, row.run, row.method, row.clips, unscored]
            for name in names:
                low, high = row.bounds.get(name) or (None, None)
                fields += [row.values.get(name), low, high] if table.intervals else [row.values.get(name)]
            writer.writerow(fields)
    return target.getvalue()


FORMATS: dict[Format, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}
