"""Who trains, validates and tests: by fractions of the people, or by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difftalk_pl.data.clips import Clip
from difftalk_pl.errors import UserError


@dataclass
class Split:
    """Who trains, validates and tests. No identity is on two sides.

    Args:
        val: a fraction of the identities, or a list of clips or identities, or a file that lists them, one a line.
        test: the same.
        train: a list or a file; by default all that is left.
        seed: of the draw by fractions.
    """

    val: float | list[str] | Path = 0.1
    test: float | list[str] | Path = 0.1
    train: list[str] | Path | None = None
    seed: int = 0

    def apply(self, clips: Sequence[Clip]) -> dict[str, list[Clip]]:
        """Divide the clips. Raises UserError where names are unknown or a person is on two sides."""
        parts = {side: self._named(side, clips) for side in ("train", "val", "test")}
        taken = {clip.identity for chosen in parts.values() for clip in chosen or ()}
        free = sorted({clip.identity for clip in clips} - taken)
        free.sort(key=self._rank)
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
        _refuse_shared_identities(sides)
        return sides

    def _rank(self, identity: str) -> str:
        """A person's place in the draw, whoever else there is: new clips hardly move those that were there."""
        return hashlib.sha256(f"{self.seed}/{identity}".encode()).hexdigest()

    def _named(self, side: str, clips: Sequence[Clip]) -> list[Clip] | None:
        """The clips that a list names; None where the side is a fraction or what is left."""
        wanted = getattr(self, side)
        if wanted is None or isinstance(wanted, (int, float)):
            return None
        if isinstance(wanted, (str, Path)):
            wanted = _lines(side, Path(wanted))
        unknown = set(wanted) - {clip.name for clip in clips} - {clip.identity for clip in clips}
        if unknown:
            raise UserError(f"split {side}: not in the dataset: {', '.join(sorted(unknown))}; see its clips.csv")
        return [clip for clip in clips if clip.name in wanted or clip.identity in wanted]


def _lines(side: str, path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(
            f"split {side}: {path}: {error.strerror}; expected a fraction, a list of names or a file of them"
        ) from error


def _refuse_shared_identities(sides: dict[str, list[Clip]]) -> None:
    seen: dict[str, str] = {}
    for side, clips in sides.items():
        for identity in sorted({clip.identity for clip in clips}):
            if identity in seen:
                raise UserError(f"split: {identity!r} is in {seen[identity]} and in {side}; move it to one side")
            seen[identity] = side
