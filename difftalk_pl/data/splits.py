"""Who trains, validates and tests: by fractions of the people, or by name."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difftalk_pl.data.clips import Clip
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

NAMED = 5  # names that a line tells


@dataclass
class Split:
    """Who trains, validates and tests. No identity is on two sides.

    A file may name clips that are not in the dataset, such as those of videos that are gone: it is said how many. Its
    lines that begin with # are passed over.

    Args:
        val: a fraction of the identities, or a list of clips or identities, or a file that lists them, one a line.
        test: the same.
        train: a list or a file; by default all that is left.
        seed: of the draw by fractions.
        share_people: let people be on two sides, as in the paper's split; no clip ever is.
    """

    val: float | list[str] | Path = 0.1
    test: float | list[str] | Path = 0.1
    train: list[str] | Path | None = None
    seed: int = 0
    share_people: bool = False

    def apply(self, clips: Sequence[Clip]) -> dict[str, list[Clip]]:
        """Divide the clips. Raises UserError where names are unknown or a person is on two sides."""
        parts = {side: self._named(side, clips) for side in ("train", "val", "test")}
        taken = {clip.identity for chosen in parts.values() for clip in chosen or ()}
        free = sorted({clip.identity for clip in clips} - taken)
        free.sort(key=lambda identity: rank(self.seed, identity))
        for side in ("test", "val"):
            fraction = getattr(self, side)
            if parts[side] is None:
                number = min(
                    max(round(fraction * len({c.identity for c in clips})), 1 if fraction > 0 else 0), len(free)
                )
                chosen, free = free[:number], free[number:]
                parts[side] = [clip for clip in clips if clip.identity in chosen]
        if parts["train"] is None:
            parts["train"] = [clip for clip in clips if clip.identity in free]
        sides = {side: list(chosen or ()) for side, chosen in parts.items()}
        _refuse_shared(sides, self.share_people)
        return sides

    def _named(self, side: str, clips: Sequence[Clip]) -> list[Clip] | None:
        """The clips that a list names; None where the side is a fraction or what is left."""
        wanted = getattr(self, side)
        if wanted is None or isinstance(wanted, (int, float)):
            return None
        path = Path(wanted) if isinstance(wanted, (str, Path)) else None
        names = set(wanted if path is None else _lines(side, path))
        if unknown := sorted(names - {clip.name for clip in clips} - {clip.identity for clip in clips}):
            if path is None:
                raise UserError(f"split {side}: not in the dataset: {', '.join(unknown)}; see its clips.csv")
            _say_missing(side, path, unknown, len(names))
        return [clip for clip in clips if clip.name in names or clip.identity in names]


def rank(seed: int, identity: str) -> str:
    """A person's place in the draw, whoever else there is: new clips hardly move those that were there."""
    return hashlib.sha256(f"{seed}/{identity}".encode()).hexdigest()


def _lines(side: str, path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(
            f"split {side}: {path}: {error.strerror}; expected a fraction, a list of names or a file of them"
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def _say_missing(side: str, path: Path, missing: list[str], listed: int) -> None:
    """Raises UserError where nothing is left."""
    some = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
    if len(missing) == listed:
        raise UserError(f"split {side}: {path}: none of its {listed} clips is in the dataset ({some})")
    log.warning("split %s: %s: %d of %d are not in the dataset: %s", side, path, len(missing), listed, some)


def _refuse_shared(sides: dict[str, list[Clip]], share_people: bool) -> None:
    """Raises UserError for what is on two sides."""
    seen: dict[str, str] = {}
    shared = []
    for side, clips in sides.items():
        here = [clip.name for clip in clips] if share_people else sorted({clip.identity for clip in clips})
        for one in here:
            if one in seen:
                raise UserError(f"split: {one!r} is in {seen[one]} and in {side}; move it to one side")
            seen[one] = side
        others = {clip.identity for other, chosen in sides.items() if other != side for clip in chosen}
        shared += sorted({clip.identity for clip in clips} & others)
    if people := sorted(set(shared)):
        log.warning("split: %d people are on two sides, among them %s", len(people), ", ".join(people[:NAMED]))
