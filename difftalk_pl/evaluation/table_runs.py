"""Files of results as `table` reads them, and the notes on what cannot be compared."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.results import FORMAT, compared, protocol_hash

RESULTS = "results.json"
LONGEST = 60  # characters of a protocol's value in a note
MISSING = "not given"


class Run(NamedTuple):
    """A results.json, its name in the table, and the protocol and clips that comparable runs share."""

    name: str
    content: dict[str, Any]

    @property
    def clips(self) -> frozenset[str]:
        """The clips, failed ones included."""
        return frozenset(clip for found in self.content["methods"].values() for clip in found["per_clip"])

    @property
    def group(self) -> str:
        """The protocol's hash and a short name for the set of clips."""
        digest = protocol_hash({"data": sorted(self.clips)})[:4]
        return f"{protocol_hash(self.content['protocol'])}, {len(self.clips)} clips ({digest})"


def open_runs(paths: list[Path]) -> list[Run]:
    """Read results, named by their folders or files, or by their whole paths where those names are not unique."""
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    return [Run(name if unique else str(path), read_results(path)) for name, path in zip(names, paths)]


def read_results(path: Path) -> dict[str, Any]:
    """Read a run's results.json. Raises UserError where it is missing, not one of this project, or newer."""
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{file}: no such file; test writes it into a run's folder, score where --out says")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise UserError(f"{file}: format {content['format']}, this version reads {FORMAT}; update difftalk_pl")
        _ = content["protocol"], [(found["overall"], found["per_clip"]) for found in content["methods"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is not a results.json of this project; give a run's folder or the file") from error
    return content


def notes(runs: list[Run]) -> list[str]:
    """Return what keeps runs from being compared, what differs without that, and which clips failed."""
    found = []
    if differing := list(_differing([compared(run.content["protocol"]) for run in runs])):
        found.append(f"Measured under different protocols, not comparable: {_described(runs, differing)}")
    elif len({run.clips for run in runs}) > 1:
        found.append(f"Measured on different clips, not comparable: {', '.join(run.name for run in runs)}")
    if differing := list(_differing([run.content["protocol"].get("generation") for run in runs], "generation")):
        found.append(f"Generated differently: {_described(runs, differing)}")
    return found + [note for run in runs for note in _failures(run)]


def _failures(run: Run) -> list[str]:
    """Return one note for each reason: the methods and measures whose means leave out failed clips."""
    shared: dict[tuple[str, str, int], dict[str, None]] = {}
    for method, found in run.content["methods"].items():
        for measure, reasons in found.get("failed", {}).items():
            clip, reason = next(iter(reasons.items()))
            shared.setdefault((clip, reason, len(reasons)), {})[f"{method} {measure}"] = None
    return [
        f"{run.name}: {', '.join(names)} failed on {count} of {len(run.clips)} clips, {clip}: {reason}"
        for (clip, reason, count), names in shared.items()
    ]


def _differing(values: list[Any], name: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield keys such as data.mask with their value in each protocol, where they are not all the same."""
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differing([value.get(key, MISSING) for value in values], f"{name}.{key}".lstrip("."))
    elif any(value != values[0] for value in values):
        yield name, values


def _described(runs: list[Run], differing: list[tuple[str, list[Any]]]) -> str:
    """Return each key with its value in every run."""
    return "; ".join(
        f"{key} ({', '.join(f'{run.name}: {json.dumps(value)[:LONGEST]}' for run, value in zip(runs, values))})"
        for key, values in differing
    )
