"""clips.csv while any number of processes prepare clips into one dataset."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from difftalk_pl.data.clips import ClipRow, read_rows, write_rows
from difftalk_pl.data.files.claims import Claims, TakenOverError
from difftalk_pl.data.refusals import Refusals
from difftalk_pl.data.source import Outcome
from difftalk_pl.errors import UserError

FLUSH = 2.0  # s between two writings
TURN = "clips.csv"  # the claim of whoever writes


def change_rows(root: Path, claims: Claims, change: Callable[[dict[str, ClipRow]], None]) -> None:
    """Read clips.csv anew, change and replace it, one process after the other, so that nobody's rows are lost.

    Args:
        change: called once more where another process took over meanwhile.
    """
    while True:
        with claims.turn(TURN) as claim:
            rows = read_rows(root)
            change(rows)
            try:
                write_rows(root, rows.values(), claim.confirm)
            except TakenOverError:
                continue
            return


class ClipBook:
    """What this process knows of the dataset's clips, and what it has still to write.

    A process that is killed loses the rows of its last seconds and no clip: whoever comes next enters them.
    """

    def __init__(self, root: Path, claims: Claims) -> None:
        self.root, self.claims = root, claims
        self.outcomes: list[Outcome] = []
        self._unwritten: list[Outcome] = []
        self._written = time.monotonic()

    def check_names(self, sources: Mapping[str, Path]) -> None:
        """A clip of this name from another file that still exists must not be overwritten."""
        rows = read_rows(self.root)
        for name, path in sources.items():
            row = rows.get(name)
            if row is not None and row.source != str(path) and Path(row.source).exists():
                raise UserError(
                    f"{path}: {self.root} has clip {name!r} from {row.source}; "
                    "rename one of them, or give another --out"
                )

    def retire(self, source: Path, names: Collection[str]) -> None:
        """Clips that a source no longer makes: refused ones are forgotten, prepared ones are not used any more."""

        def change(rows: dict[str, ClipRow]) -> None:
            for row in list(rows.values()):
                if row.source == str(source) and row.name not in names:
                    if row.status == "ok":
                        reason = f"{source} no longer makes this clip; {self.root / 'clips' / row.name} can be removed"
                        rows[row.name] = row._replace(frames=0, status="refused", reason=reason)
                    elif not (self.root / "clips" / row.name).exists():
                        del rows[row.name]

        change_rows(self.root, self.claims, change)

    def enter(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._unwritten.append(outcome)
        if time.monotonic() - self._written > FLUSH:
            self.write()

    def write(self) -> None:
        """Write what is entered and not yet written."""
        if not self._unwritten:
            return

        def change(rows: dict[str, ClipRow]) -> None:
            for outcome in self._unwritten:
                name, known = outcome.row.name, rows.get(outcome.row.name)
                if outcome.refusal is not None and Refusals(self.root, since=0).known(name) is None:
                    continue  # another process has made it since
                edited = known is not None and known.identity not in ("", name)  # whoever edited the column keeps it
                rows[name] = outcome.row._replace(identity=known.identity) if known and edited else outcome.row

        change_rows(self.root, self.claims, change)
        self._unwritten.clear()
        self._written = time.monotonic()

    def usable(self) -> set[str]:
        return {row.name for row in read_rows(self.root).values() if row.status == "ok"}
