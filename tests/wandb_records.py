"""What an offline run of wandb recorded, read without wandb's own reader."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7  # of a log in LevelDB's framing: checksum (4 bytes), length (2), kind (1)
WHOLE, LAST = 1, 4  # kinds of pieces that end a record


def read_wandb(run_folder: Path, seconds: float = 60) -> list[Record]:
    """Records of all offline runs below RUN/wandb, the oldest first.

    A process of wandb's own writes them, and ends a file some time after `finish`: waits for that at most so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        paths = sorted(run_folder.glob("wandb/offline-run-*/run-*.wandb"))
        logs = [[Record.FromString(content) for content in _contents(path.read_bytes())] for path in paths]
        if all(_of(log, "exit") for log in logs) or time.monotonic() > deadline:
            return [record for log in logs for record in log]
        time.sleep(0.05)


def _contents(log: bytes) -> Iterator[bytes]:
    """Records, joined from the pieces that blocks cut them into. The file has a header of its own of seven bytes."""
    place, joined = HEADER, b""
    while place + HEADER <= len(log):
        if (room := BLOCK - place % BLOCK) < HEADER:  # is left empty
            place += room
            continue
        length, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        joined += log[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            yield joined
            joined = b""


def history(records: list[Record]) -> list[dict[str, Any]]:
    """What was logged, one dictionary a step; media are dictionaries with `_type`."""
    return [_values(record.history.item) for record in _of(records, "history")]


def summary(records: list[Record]) -> dict[str, Any]:
    """The last value of everything."""
    return _values(item for record in _of(records, "summary") for item in record.summary.update)


def config(records: list[Record]) -> dict[str, Any]:
    """The configuration, whenever it was logged."""
    updates = [record.run.config for record in _of(records, "run")]
    updates += [record.config for record in _of(records, "config")]
    return _values(item for update in updates for item in update.update)


def files(records: list[Record]) -> list[str]:
    """Paths of what goes with a run, below its folder `files`."""
    return [file.path for record in _of(records, "files") for file in record.files.files]


def runs(records: list[Record]) -> list[tuple[str, bool]]:
    """Id of every offline run, and whether it was given one."""
    return [(record.run.run_id, record.run.telemetry.feature.set_init_id) for record in _of(records, "run")]


def commits(records: list[Record]) -> list[str]:
    """The commit that wandb itself found for every offline run."""
    return [record.run.git.commit for record in _of(records, "run")]


def _of(records: list[Record], kind: str) -> list[Record]:
    return [record for record in records if record.WhichOneof("record_type") == kind]


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """Keys in several parts, which media have, become dictionaries within dictionaries."""
    values: dict[str, Any] = {}
    for item in items:
        *above, last = item.nested_key or [item.key]
        place = values
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return values
