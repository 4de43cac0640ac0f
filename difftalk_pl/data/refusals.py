"""ROOT/refused/NAME.json: why a clip was refused, so that nobody tries it again who would only find the same."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.data.clips import write_json

REFUSED = "refused"  # folder below ROOT


class Refusals(NamedTuple):
    """What one command takes from them.

    Args:
        since: when it began, in seconds of the disk's clock.
        retry: whether what was refused before that is tried again, though nothing has changed.
    """

    root: Path
    since: float
    retry: bool = False

    def known(self, name: str) -> dict[str, Any] | None:
        """What was written, as far as this command heeds it: a crash before it began is tried again."""
        path = self._path(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            heeded = path.stat().st_mtime >= self.since or not (self.retry or "crashes" in record)
        except (OSError, ValueError, TypeError):
            return None
        return record if heeded else None

    def write(self, name: str, record: dict[str, Any]) -> None:
        path = self._path(name)
        path.parent.mkdir(exist_ok=True)
        write_json(path, record)

    def crashed(self, name: str, reason: str) -> int:
        """Write down that a clip's process died; says how often it has."""
        crashes = (self.known(name) or {}).get("crashes", 0) + 1
        self.write(name, {"reason": reason, "crashes": crashes})
        return crashes

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.root / REFUSED / f"{name}.json"
