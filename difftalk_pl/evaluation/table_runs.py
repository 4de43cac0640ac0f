"""Files of results as `table` reads them, and the notes on what cannot be compared."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.results import FORMAT, compared, protocol_hash

RESULTS = "results.json"


class Run(NamedTuple):
    """A results.json and its name in the table."""

    name: str
    content: dict[str, Any]

    @property
    def clips(self) -> frozenset[str]:
        """The clips, failed ones included."""
        return frozenset(clip for found in self.content["methods"].values() for clip in found["per_clip"])

    @property
    def group(self) -> str:
        """What comparable runs share: the protocol's hash and the clips, as a number and a hash."""
        digest = protocol_hash({"data": sorted(self.clips)})[:4]
        return f"{protocol_hash(self.content['protocol'])}, {len(self.clips)} clips ({digest})"


def open_runs(paths: list[Path]) -> list[Run]:
    """Read results, named by their folders or files, or by their whole paths where those names are not unique.

    Raises:
        UserError: a file is missing, is not one of this project, or is newer.
    """
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    return [Run(name if unique else str(path), _read(path)) for name, path in zip(names, paths)]


def _read(path: Path) -> dict[str, Any]:
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
    """Return what keeps runs from being compared, and how else they differ."""
    found, names = [], ", ".join(run.name for run in runs)
    protocols = [run.content["protocol"] for run in runs]
    if differing := "; ".join(_differences([compared(protocol) for protocol in protocols])):
        found.append(f"Measured under different protocols, not comparable: {differing} ({names})")
    elif len({run.clips for run in runs}) > 1:
        found.append(f"Measured on different clips, not comparable: {names}")
    if differing := "; ".join(_differences([protocol.get("generation") for protocol in protocols], "generation")):
        found.append(f"Generated differently: {differing} ({names})")
    return found


def _differences(values: list[Any], name: str = "") -> Iterator[str]:
    """Yield keys such as data.mask with their value in each protocol, where they are not all the same."""
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differences([value.get(key, "not given") for value in values], f"{name}.{key}".lstrip("."))
    elif any(value != values[0] for value in values):
        yield f"{name} {' / '.join(json.dumps(value)[:60] for value in values)}"
