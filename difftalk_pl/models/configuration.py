"""Configuration dataclasses as plain values and back, because checkpoints store nothing that needs unpickling."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON has it, with lists for tuples."""
    return json.loads(json.dumps(asdict(config)))


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `kind` from nested plain dictionaries; lists become tuples, missing keys keep their defaults.

    Raises ValueError that names the keys which `kind` does not have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{kind.__name__} has no {', '.join(map(repr, unknown))}: it knows {', '.join(known)}")
    hints = get_type_hints(kind)
    return kind(**{key: _restore(hints[key], value) for key, value in values.items()})


def _restore(hint: Any, value: Any) -> Any:
    if is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value
