"""What became of every video that is downloaded: one small file each in FOLDER/ledger, written aside and renamed.

There is no common file that a killed process could leave torn. A video without a file is pending; who works on one
holds its claim, so that any number of downloads may share a folder.
"""

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from heapq import nlargest
from pathlib import Path
from typing import Literal, get_args

from difftalk_pl.data.files.claims import Claims

log = logging.getLogger(__name__)

LEDGER = "ledger"  # folder of the ledger's files, below that of the videos
CLAIMS = "claims"  # below the ledger
State = Literal["pending", "done", "gone", "failed"]


@dataclass(frozen=True)
class Record:
    """What is known of one video.

    Args:
        state: pending: not tried yet. done: whole, checked and in its place. gone: its site says that it is not there
            any more; not tried again unasked. failed: the next run tries again.
        reason: why it is gone or failed.
        tries: how often it was tried, in all runs.
        when: of the last change, ISO 8601, UTC.
        file: of a done one, its name in the folder; of a pending one, what it was called when it was done.
        bytes, seconds, width, height: of that file; the size tells whether it is still the same.
        origin: the address or the file that it came from.
        remote: whether network or server were to blame.
    """

    name: str
    state: State = "pending"
    reason: str = ""
    tries: int = 0
    when: str = ""
    file: str = ""
    bytes: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    origin: str = ""
    remote: bool = False


def done(name: str, path: Path, shape: tuple[float, int, int], origin: str, tries: int = 0) -> Record:
    """Of a checked file in its place; shape: seconds, width and height."""
    seconds, width, height = shape
    return Record(name, "done", "", tries, "", path.name, path.stat().st_size, seconds, width, height, origin)


class Ledger:
    """The records of one folder of videos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.claims = Claims(folder / LEDGER / CLAIMS)

    def path(self, name: str) -> Path:
        return self.folder / LEDGER / f"{name}.json"

    def read(self, name: str) -> Record:
        """Pending where there is nothing, or nothing that can be read, or where a done file is not there any more."""
        try:
            record = Record(**json.loads(self.path(name).read_text(encoding="utf-8")))
            if record.state not in get_args(State) or not isinstance(record.file, str):
                raise ValueError("of another kind")
        except FileNotFoundError:
            return Record(name)
        except (ValueError, TypeError) as error:
            log.warning("%s: no record (%s), counted as pending", self.path(name), error)
            return Record(name)
        if record.state == "done" and not self._holds(record):
            return Record(
                name, reason=f"{record.file} has been removed or changed", file=record.file, origin=record.origin
            )
        return record

    def write(self, record: Record) -> Record:
        """Whole or not at all, with the time of now."""
        path = self.path(record.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Record(**asdict(record) | {"when": datetime.now(timezone.utc).isoformat(timespec="seconds")})
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with aside.open("w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        return record

    def note(self, record: Record) -> Record:
        """As `write`; where the disk refuses, it is said and the work goes on."""
        try:
            return self.write(record)
        except OSError as error:
            log.error("%s: cannot be written: %s", self.path(record.name), error.strerror)
            return record

    def is_cut_off(self, latest: int = 3, within: float = 600) -> bool:
        """Whether the last few videos that anybody tried here, in so many seconds, all failed for want of a server."""
        written = [(path.stat().st_mtime, path.stem) for path in (self.folder / LEDGER).glob("[!.]*.json")]
        last = [name for changed, name in nlargest(latest, written) if time.time() - changed < within]
        return len(last) == latest and all(self.read(name).remote for name in last)

    def _holds(self, record: Record) -> bool:
        try:
            return (self.folder / record.file).stat().st_size == record.bytes
        except OSError:
            return False
