"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from difftalk_pl.callbacks.results import protocol_hash
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.paper_tables import TABLES, PaperRow, PaperTable, TestSet
from difftalk_pl.evaluation.table_formats import FORMATS, MEASURES, SYNC, Format, Group, Row, Table, uncompared
from difftalk_pl.evaluation.table_runs import Run, covered, differing, is_seed, open_runs, told

log = logging.getLogger(__name__)

ON_TOP = ("ground truth", "codec")  # bounds, not competitors
CONTROL = "shuffled audio"  # no competitor either
PAPER_MEASURES = ("psnr", "ssim", "lpips", *SYNC)
GENERATION = "generation"  # part of a protocol that runs of one group may differ in


def table(
    runs: list[Path],
    format: Format = "markdown",
    paper: PaperTable | None = None,
    set: TestSet | None = None,
    metrics: str = "",
    methods: str = "",
    intervals: bool = False,
    out: Path | None = None,
) -> None:
    """Print the results of runs as one table: methods in rows, measures in columns; the best value of a column is bold
    and the second best underlined.

    Ground truth and codec stand on top; they and the control with shuffled audio are never marked. Rows of different
    protocols, or of other clips, stand apart, are marked apart, and a note names what differs. How frames were
    generated may differ, seeds included, and is noted. A measure is marked among rows whose means cover the same clips;
    a note names those that cover fewer. What was not measured is a dash, in csv an empty field.

    Args:
        runs: folders with a results.json, or such files.
        format: markdown, latex (wants the package booktabs), or csv (all digits, no marks).
        paper: rows of this table of the paper, or of all, below the others, never marked: its protocol is another one.
        set: one of the paper's test sets. By default both.
        metrics: which, such as psnr,ssim,sync; sync is SyncNet's offset / confidence. By default all there are.
        methods: which, such as "ground truth,model". By default all.
        intervals: with the 95 % intervals over clips.
        out: the file to write; without it, the table goes to the terminal.
    """
    opened = open_runs(runs)
    groups, notes = _groups(opened, _listed(methods))
    columns = _columns(_listed(metrics), groups, paper is not None)
    for group in groups:
        notes += _left_out(group.rows, columns, len(opened) > 1) + _unmarked(group.rows, columns, len(opened) > 1)
    groups += _paper_groups(paper, set)
    text = FORMATS[format](Table(columns, groups, notes, intervals, several_runs=len(opened) > 1))
    for note in notes:
        log.warning("%s", note)
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    log.info("%s: %d rows", out, sum(len(group.rows) for group in groups))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _groups(runs: list[Run], methods: list[str]) -> tuple[list[Group], list[str]]:
    """What can be compared together: runs of one protocol and the same clips; and notes on what differs."""
    there = list(dict.fromkeys(method for run in runs for method in run.content["methods"]))
    if unknown := [method for method in methods if method not in there]:
        raise UserError(f"--methods {', '.join(unknown)}: not in these results; there are {', '.join(there)}")
    protocols: dict[str, list[Run]] = {}
    alike: dict[tuple[str, frozenset[str]], list[Run]] = {}
    for run in runs:
        key = protocol_hash(run.protocol)
        protocols.setdefault(key, []).append(run)
        alike.setdefault((key, run.clips), []).append(run)
    notes = [_protocols_differ([members[0] for members in protocols.values()])] if len(protocols) > 1 else []
    for members in protocols.values():
        notes += _others_differ(members)
    groups = []
    for (key, clips), members in alike.items():
        title = f"protocol {key}, {len(clips)} clips" if len(alike) > 1 else ""
        groups.append(Group(title, _rows(members, methods)))
    return groups, notes


def _rows(runs: list[Run], methods: list[str]) -> list[Row]:
    """Ground truth and codec first; what several runs have measured alike of them stands there once."""
    rows: list[Row] = []
    for run in runs:
        for method, found in run.content["methods"].items():
            if methods and method not in methods:
                continue
            row = Row.read(run.name, method, found, ranked=method not in (*ON_TOP, CONTROL))
            same = [place for place, other in enumerate(rows) if not row.ranked and row.same_numbers(other)]
            if same:
                rows[same[0]] = rows[same[0]]._replace(run="")
            else:
                rows.append(row)
    order = {method: place for place, method in enumerate(ON_TOP)}
    return sorted(rows, key=lambda row: order.get(row.method, len(ON_TOP)))


def _protocols_differ(runs: list[Run]) -> str:
    """Names the keys of the protocols that differ, with their values."""
    return f"Measured under different protocols, not comparable: {told(runs, differing(covered(runs)))}"


def _others_differ(runs: list[Run]) -> list[str]:
    """Of one protocol: clips, over which means cannot be compared; generation and seeds, over which they can."""
    first, *others = runs
    different = [run.name for run in others if run.clips != first.clips]
    notes = [f"Measured on other clips than {first.name}, not comparable: {', '.join(different)}"] if different else []
    found = differing([run.protocol for run in runs])
    if other := [(key, values) for key, values in found if key.startswith(GENERATION) and not is_seed(key)]:
        notes.append(f"Generated differently: {told(runs, other)}")
    if seeds := [(key, values) for key, values in found if is_seed(key)]:
        notes.append(f"Other seeds, the same protocol: {told(runs, seeds)}")
    return notes


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
    there = there or {name for row in rows for name in row.failed}  # all clips failed: dashes, and notes say why
    if not there:
        raise UserError("these results hold no number; see their failed and clips for the reasons")
    merged = [SYNC if name in SYNC else (name,) for name in MEASURES if name in there]
    return list(dict.fromkeys(merged))


def _left_out(rows: list[Row], columns: list[tuple[str, ...]], several_runs: bool) -> list[str]:
    """What means do not cover: clips that failed, with one of the reasons, and clips where a measure is undefined."""
    found = _gathered(rows, columns, several_runs, lambda row, measure: row.left_out(measure))
    return [f"{', '.join(titles)}: {measures} {reason}" for measures, reason, titles in found]


def _unmarked(rows: list[Row], columns: list[tuple[str, ...]], several_runs: bool) -> list[str]:
    """Which means take no part in the marks, since they leave out clips that others cover."""
    found = _gathered(rows, columns, several_runs, lambda row, measure: uncompared(rows, row, measure))
    return [f"not marked: {measures} of {', '.join(titles)} {reason}" for measures, reason, titles in found]


def _gathered(
    rows: list[Row], columns: list[tuple[str, ...]], several_runs: bool, why: Callable[[Row, str], list[str]]
) -> list[tuple[str, str, list[str]]]:
    """Measures, a reason, and the rows that share both: one note for all of them."""
    shared: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        apart: dict[str, list[str]] = {}
        for measure in (name for column in columns for name in column):
            for reason in why(row, measure):
                apart.setdefault(reason, []).append(measure)
        for reason, measures in apart.items():
            shared.setdefault((", ".join(measures), reason), []).append(row.title(several_runs))
    return [(measures, reason, titles) for (measures, reason), titles in shared.items()]


def _paper_groups(paper: PaperTable | None, chosen: TestSet | None) -> list[Group]:
    groups = []
    for name in TABLES if paper == "all" else [paper] if paper else []:
        for test_set, found in TABLES[name].items():
            if chosen in (test_set, None):
                title = f"paper, table {name.removeprefix('table')}, set {test_set}; another protocol: not comparable"
                groups.append(Group(title, [_paper_row(one) for one in found]))
    return groups


def _paper_row(found: PaperRow) -> Row:
    values = {name: getattr(found, name) for name in PAPER_MEASURES}
    return Row("", f"{found.method} (paper)", values, ranked=False)
