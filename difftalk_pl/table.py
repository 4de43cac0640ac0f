"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.callbacks.results import FORMAT, SEED, protocol_hash
from difftalk_pl.errors import UserError
from difftalk_pl.paper_tables import TABLES, PaperRow, PaperTable, TestSet
from difftalk_pl.table_formats import FORMATS, MEASURES, SYNC, Format, Group, Row, Table

log = logging.getLogger(__name__)

RESULTS = "results.json"
ON_TOP = ("ground truth", "codec")  # bounds, not competitors
CONTROL = "shuffled audio"  # no competitor either
PAPER_MEASURES = ("psnr", "ssim", "lpips", *SYNC)
SHOWN = 60  # characters of a protocol's value in a note
FIRST_FORMAT = {"checkpoint", "weights", "codec"}  # format 1 has them in the protocol: they name the model
UNSAID = object()


class Run(NamedTuple):
    """A results.json and what it is called."""

    name: str
    content: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        found = self.content.get("protocol") or {}
        return {key: value for key, value in found.items() if key not in FIRST_FORMAT}

    @property
    def clips(self) -> frozenset[str]:
        """Failed ones, too."""
        return frozenset(clip for found in self.content["methods"].values() for clip in found["per_clip"])


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
    protocols, or of other clips, stand apart, are marked apart, and a note names what differs. Seeds may differ. What
    was not measured is a dash, in csv an empty field.

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
    opened = _open_runs(runs)
    groups, notes = _groups(opened, _listed(methods))
    columns = _columns(_listed(metrics), groups, paper is not None)
    notes += [note for group in groups for note in _left_out(group.rows, columns, several_runs=len(opened) > 1)]
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


def read_results(path: Path) -> dict[str, Any]:
    """A run's results.json. Raises UserError where it is missing, no such file, or of a later format."""
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{file}: no such file; test writes it into a run's folder, score where --out says")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not JSON ({error}); give a run's folder or its {RESULTS}") from error
    methods = content.get("methods") if isinstance(content, dict) else None
    if not isinstance(methods, dict) or not all(_is_method(found) for found in methods.values()):
        raise UserError(f'{file}: no "methods" with "overall" and "per_clip"; give a run\'s folder or its {RESULTS}')
    if content.get("format", 1) > FORMAT:
        raise UserError(f"{file}: format {content['format']}, this version reads up to {FORMAT}; update difftalk_pl")
    return content


def _is_method(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(key), dict) for key in ("overall", "per_clip"))


def _open_runs(paths: list[Path]) -> list[Run]:
    """Named by their folders or files, and by their whole paths where those are not enough."""
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    return [Run(name if unique else str(path), read_results(path)) for name, path in zip(names, paths)]


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
    parts = _parts(runs, [(key, values) for key, values in _differing(runs) if not _is_seed(key)])
    return f"Measured under different protocols, not comparable: {'; '.join(parts)}"


def _others_differ(runs: list[Run]) -> list[str]:
    """Of one protocol: clips, over which means cannot be compared, and seeds, over which they can."""
    first, *others = runs
    different = [run.name for run in others if run.clips != first.clips]
    notes = [f"Measured on other clips than {first.name}, not comparable: {', '.join(different)}"] if different else []
    seeds = _parts(runs, [(key, values) for key, values in _differing(runs) if _is_seed(key)])
    return notes + ([f"Other seeds, the same protocol: {'; '.join(seeds)}"] if seeds else [])


def _differing(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    return list(_walk([run.protocol for run in runs]))


def _walk(values: list[Any], name: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Keys like data.mask and their value in each protocol, where they are not all the same."""
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _walk([value.get(key, UNSAID) for value in values], f"{name}.{key}".lstrip("."))
    elif any(value != values[0] for value in values):
        yield name, values


def _parts(runs: list[Run], differing: list[tuple[str, list[Any]]]) -> list[str]:
    return [
        f"{key} ({', '.join(f'{run.name}: {_shown(value)}' for run, value in zip(runs, values))})"
        for key, values in differing
    ]


def _shown(value: Any) -> str:
    text = "not said" if value is UNSAID else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == SEED


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


def _left_out(rows: list[Row], columns: list[tuple[str, ...]], several_runs: bool) -> list[str]:
    """What means do not cover: clips that failed, with one of the reasons, and clips where a measure is undefined."""
    shared: dict[str, list[str]] = {}
    for row in rows:
        apart: dict[str, list[str]] = {}
        for measure in (name for column in columns for name in column):
            for reason in row.left_out(measure):
                apart.setdefault(reason, []).append(measure)
        for reason, measures in apart.items():
            shared.setdefault(f"{', '.join(measures)} {reason}", []).append(row.title(several_runs))
    return [f"{', '.join(titles)}: {text}" for text, titles in shared.items()]


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
