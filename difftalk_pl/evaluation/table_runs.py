"""Files of results as `table` reads them: what is checked before a number is shown, and what tells runs apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.callbacks.results import FORMAT, SEED, compared
from difftalk_pl.errors import UserError

RESULTS = "results.json"
SHOWN = 60  # characters of a protocol's value in a note
FIRST_FORMAT = {"checkpoint", "weights", "codec"}  # format 1 has them in the protocol: they name the model
UNSAID = object()

EACH = "*"  # any key of an object
NUMBER = (float, int)
VALUES = {EACH: (*NUMBER, type(None))}
METHOD = {  # the shape of a method: kinds of values, objects, and a list of so many
    "overall": VALUES,
    "per_clip": {EACH: VALUES},
    "interval": {EACH: [NUMBER, NUMBER]},
    "undefined": {EACH: (int,)},
    "failed": {EACH: {EACH: (str,)}},
}
REQUIRED = {"methods", "overall", "per_clip"}
SHAPE = {"format": (int,), "methods": {EACH: METHOD}, "protocol": {}}
CALLED = {(int,): "a whole number", (str,): "a text", VALUES[EACH]: "a number or null"}


class Run(NamedTuple):
    """A results.json and what it is called."""

    name: str
    content: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        found = self.content.get("protocol", {})
        return {key: value for key, value in found.items() if key not in FIRST_FORMAT}

    @property
    def clips(self) -> frozenset[str]:
        """Failed ones, too."""
        return frozenset(clip for found in self.content["methods"].values() for clip in found["per_clip"])


def open_runs(paths: list[Path]) -> list[Run]:
    """Named by their folders or files, and by their whole paths where those are not enough."""
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    return [Run(name if unique else str(path), read_results(path)) for name, path in zip(names, paths)]


def read_results(path: Path) -> dict[str, Any]:
    """A run's results.json. Raises UserError where it is missing, of another shape, or of a later format."""
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise UserError(f"{file}: no such file; test writes it into a run's folder, score where --out says")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not JSON ({error}); give a run's folder or its {RESULTS}") from error
    later = content.get("format") if isinstance(content, dict) else None
    if isinstance(later, int) and later > FORMAT:
        raise UserError(f"{file}: format {later}, this version reads up to {FORMAT}; update difftalk_pl")
    if fault := next(_faults(content, SHAPE, ""), None):
        raise UserError(f"{file}: is not a results.json of this project: {fault}; give a run's folder or its {RESULTS}")
    return content


def _faults(value: Any, shape: Any, name: str) -> Iterator[str]:
    """Where a value is not of a shape like `SHAPE`, and what stands there. Keys that a shape does not name are free."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{name or 'the whole'} is {_brief(value)}, expected an object"
            return
        keys = dict.fromkeys(value, shape[EACH]) if EACH in shape else shape
        yield from (f"no {_below(name, key)}" for key in keys if key in REQUIRED and key not in value)
        for key, inner in keys.items():
            if key in value:
                yield from _faults(value[key], inner, _below(name, key))
    elif isinstance(shape, list):
        pair = isinstance(value, list) and len(value) == len(shape) and all(type(one) in NUMBER for one in value)
        if value is not None and not pair:
            yield f"{name} is {_brief(value)}, expected {len(shape)} numbers or null"
    elif type(value) not in shape:
        yield f"{name} is {_brief(value)}, expected {CALLED[shape]}"


def _below(name: str, key: str) -> str:
    return f"{name}.{key}".lstrip(".")


def differing(protocols: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Keys like data.mask and their value in each protocol, where they are not all the same."""
    return list(_walk(protocols))


def covered(runs: list[Run]) -> list[dict[str, Any]]:
    """Of each run's protocol what its hash covers."""
    return [compared(run.protocol) for run in runs]


def _walk(values: list[Any], name: str = "") -> Iterator[tuple[str, list[Any]]]:
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _walk([value.get(key, UNSAID) for value in values], _below(name, key))
    elif any(value != values[0] for value in values):
        yield name, values


def told(runs: list[Run], found: list[tuple[str, list[Any]]]) -> str:
    """For a note: each key, with its value in every run."""
    return "; ".join(
        f"{key} ({', '.join(f'{run.name}: {_brief(value)}' for run, value in zip(runs, values))})"
        for key, values in found
    )


def is_seed(key: str) -> bool:
    return key.endswith(SEED)


def _brief(value: Any) -> str:
    text = "not said" if value is UNSAID else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
