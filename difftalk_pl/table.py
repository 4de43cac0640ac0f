"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import json
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.callbacks.results import FORMAT, protocol_hash
from difftalk_pl.errors import UserError
from difftalk_pl.paper_tables import TABLES, PaperTable, TestSet
from difftalk_pl.table_formats import FORMATS, MEASURES, SYNC, Format, Group, Row, Table

log = logging.getLogger(__name__)

RESULTS = "results.json"
ON_TOP = ("ground truth", "codec")  # bounds, not competitors
PAPER_MEASURES = ("psnr", "ssim", "lpips", "sync_offset", "sync_confidence")
SHOWN = 60  # characters of a protocol's value in a note


class Run(NamedTuple):
    """A results.json and what it is called."""

    name: str
    content: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.content.get("protocol") or {}

    @property
    def hash(self) -> str:
        return self.content.get("protocol_hash") or protocol_hash(self.protocol)


def table(
    runs: list[Path],
    format: Format = "markdown",
    paper: PaperTable | None = None,
    set: TestSet = "A",
    metrics: str = "",
    methods: str = "",
    intervals: bool = False,
    out: Path | None = None,
) -> None:
    """Print the results of runs as one table: methods in rows, measures in columns; the best value of a column is bold
    and the second best underlined.

    Ground truth and codec stand on top and are never marked. Rows of different protocols stand apart, are marked apart,
    and a note names what differs. What was not measured is a dash, in csv an empty field.

    Args:
        runs: folders with a results.json, or such files.
        format: markdown, latex (wants the package booktabs), or csv (all digits, no marks).
        paper: rows of this table of the paper below the others, never marked: its protocol is another one.
        set: the paper's test set.
        metrics: which, such as psnr,ssim,sync; sync is SyncNet's offset / confidence. By default all there are.
        methods: which, such as "ground truth,model". By default all.
        intervals: with the 95 % intervals over clips.
        out: the file to write; without it, the table goes to the terminal.
    """
    opened = _open_runs(runs)
    groups, notes = _groups(opened, _listed(methods))
    columns = _columns(_listed(metrics), groups, paper is not None)
    notes += [note for group in groups for row in group.rows for note in _left_out(row, columns)]
    if paper is not None:
        groups.append(_paper_group(paper, set))
    text = FORMATS[format](Table(columns, groups, notes, intervals, several_runs=len(opened) > 1))
    for note in notes:
        log.warning("%s", note)
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    log.info("%s: %d rows", out, sum(len(group.rows) for group in groups))


def read_results(path: Path) -> dict[str, Any]:
    """A run's results.json. Raises UserError where it is missing, no such file, or of a later format."""
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{file}: no such file; test writes it into a run's folder, score where --out says")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not JSON ({error}); give a run's folder or its {RESULTS}") from error
    if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
        raise UserError(f'{file}: no "methods" in it; give a run\'s folder or its {RESULTS}')
    if content.get("format", 1) > FORMAT:
        raise UserError(f"{file}: format {content['format']}, this version reads up to {FORMAT}; update difftalk_pl")
    return content


def _open_runs(paths: list[Path]) -> list[Run]:
    """Named by their folders or files, and by their whole paths where those are not enough."""
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    return [Run(name if unique else str(path), read_results(path)) for name, path in zip(names, paths)]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _groups(runs: list[Run], methods: list[str]) -> tuple[list[Group], list[str]]:
    """A group for each protocol, and notes on what differs between and within them."""
    there = list(dict.fromkeys(method for run in runs for method in run.content["methods"]))
    if unknown := [method for method in methods if method not in there]:
        raise UserError(f"--methods {', '.join(unknown)}: not in these results; there are {', '.join(there)}")
    by_protocol: dict[str, list[Run]] = {}
    for run in runs:
        by_protocol.setdefault(run.hash, []).append(run)
    groups = [
        Group(f"protocol {key}" if len(by_protocol) > 1 else "", _rows(members, methods))
        for key, members in by_protocol.items()
    ]
    notes = [_differences([members[0] for members in by_protocol.values()])] if len(by_protocol) > 1 else []
    return groups, notes + [note for members in by_protocol.values() for note in _other_clips(members)]


def _rows(runs: list[Run], methods: list[str]) -> list[Row]:
    """Ground truth and codec first. A ground truth that several runs have measured alike stands there once."""
    rows: list[Row] = []
    for run in runs:
        for method, found in run.content["methods"].items():
            if methods and method not in methods:
                continue
            row = Row.read(run.name, method, found, ranked=method not in ON_TOP)
            if method == ON_TOP[0] and any(row.same_numbers(other) for other in rows if other.method == method):
                continue
            rows.append(row)
    order = {method: place for place, method in enumerate(ON_TOP)}
    rows.sort(key=lambda row: order.get(row.method, len(ON_TOP)))
    truths = [row for row in rows if row.method == ON_TOP[0]]
    return [row._replace(run="") if truths == [row] else row for row in rows]


def _differences(runs: list[Run]) -> str:
    """Names the keys of the protocols that differ, with their values."""
    flat = {run.name: dict(_flatten(run.protocol)) for run in runs}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    parts = []
    for key in keys:
        values = {name: json.dumps(found.get(key), default=str)[:SHOWN] for name, found in flat.items()}
        if len({*values.values()}) > 1:
            parts.append(f"{key} ({', '.join(f'{name}: {value}' for name, value in values.items())})")
    return f"Measured under different protocols, not comparable: {'; '.join(parts) or 'protocol_hash'}"


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"a": {"b": 1}} -> [("a.b", 1)]"""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]
    return flat


def _other_clips(runs: list[Run]) -> list[str]:
    """The protocol does not name the clips: means over different ones cannot be compared either."""
    clips = {
        run.name: {clip for found in run.content["methods"].values() for clip in found["per_clip"]} for run in runs
    }
    first = runs[0].name
    different = [name for name, there in clips.items() if there != clips[first]]
    return [f"Measured on other clips than {first}, not comparable: {', '.join(different)}"] if different else []


def _columns(wanted: list[str], groups: list[Group], with_paper: bool) -> list[tuple[str, ...]]:
    """Measures, one a column or, for SyncNet, two in one. Raises UserError for an unknown one."""
    known = [*MEASURES, "sync"]
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--metrics {', '.join(unknown)}: unknown; there are {', '.join(known)}")
    if wanted:
        return [SYNC if name == "sync" else (name,) for name in wanted]
    rows = [row for group in groups for row in group.rows]
    there = {name for name in MEASURES if any(row.values.get(name) is not None for row in rows)}
    if with_paper:
        there |= {*PAPER_MEASURES}
    if not there:
        raise UserError("these results hold no number; see their failed and clips for the reasons")
    merged = [SYNC if name in SYNC else (name,) for name in MEASURES if name in there]
    return list(dict.fromkeys(merged))


def _left_out(row: Row, columns: list[tuple[str, ...]]) -> list[str]:
    """What the means of a row do not cover, and one of the reasons."""
    notes = []
    for measure in (name for column in columns for name in column):
        count = row.undefined.get(measure, 0)
        if reasons := row.failed.get(measure):
            clip, reason = next(iter(reasons.items()))
            notes.append(f"{row.title(True)}: {measure} failed on {len(reasons)} of {row.clips}, {clip}: {reason}")
        elif count and row.values.get(measure) is not None:
            notes.append(f"{row.title(True)}: {measure} is undefined on {count} of {row.clips}, left out of the mean")
    return notes


def _paper_group(paper: PaperTable, chosen: TestSet) -> Group:
    rows = [
        Row("", f"{found.method} (paper)", {name: getattr(found, name) for name in PAPER_MEASURES}, ranked=False)
        for found in TABLES[paper][chosen]
    ]
    title = f"paper, table {paper.removeprefix('table')}, set {chosen}; another protocol: not comparable"
    return Group(title, rows)
