"""Which clips train, validate and test: by fractions of the people, or by name."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difftalk_pl.data.clips import Clip
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

SIDES = ("train", "val", "test")
NAMED = 5  # names in a message


@dataclass
class Split:
    """Which clips train, validate and test. No identity is on two sides.

    A file may name clips that are not in the dataset, such as those of videos that were deleted: a warning counts them.
    Lines that begin with # are comments.

    Args:
        val: a fraction of the identities, or a list of clips or identities, or a file that lists them, one a line.
        test: the same.
        train: a list or a file; by default everything that is left.
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
        named = {side: self._named(side, clips) for side in SIDES}
        people = {clip.identity for clip in clips}
        taken = {clip.identity for chosen in named.values() for clip in chosen or ()}
        free = sorted(people - taken, key=lambda identity: rank(self.seed, identity))
        for side in ("test", "val"):
            fraction = getattr(self, side)
            if named[side] is None:
                number = max(round(fraction * len(people)), 1 if fraction > 0 else 0)
                chosen, free = free[:number], free[number:]
                named[side] = [clip for clip in clips if clip.identity in chosen]
        if named["train"] is None:
            named["train"] = [clip for clip in clips if clip.identity in free]
        sides = {side: list(chosen or ()) for side, chosen in named.items()}
        side_of: dict[str, str] = {}
        for side, members in sides.items():
            for name in sorted({clip.name if self.share_people else clip.identity for clip in members}):
                if (other := side_of.setdefault(name, side)) != side:
                    raise UserError(f"split: {name!r} is in {other} and in {side}; move it to one side")
        return sides

    def _named(self, side: str, clips: Sequence[Clip]) -> list[Clip] | None:
        """The clips that a list names; None where the side is a fraction or what is left."""
        wanted = getattr(self, side)
        if wanted is None or isinstance(wanted, (int, float)):
            return None
        path = Path(wanted) if isinstance(wanted, (str, Path)) else None
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()] if path else wanted
        except OSError as error:
            expected = "expected a fraction, names or their file"
            raise UserError(f"split {side}: {path}: {error.strerror}; {expected}") from error
        names = {line for line in lines if line and not line.startswith("#")}
        if unknown := sorted(names - {clip.name for clip in clips} - {clip.identity for clip in clips}):
            told = f"split {side}: {len(unknown)} of {len(names)} are not in the dataset: {', '.join(unknown[:NAMED])}"
            if path is None or len(unknown) == len(names):
                raise UserError(f"{told}; see its clips.csv")
            log.warning("%s", told)
        return [clip for clip in clips if clip.name in names or clip.identity in names]


def rank(seed: int, identity: str) -> str:
    """Hash a person's name: independent of all other people, so that new clips hardly move people between sides."""
    return hashlib.sha256(f"{seed}/{identity}".encode()).hexdigest()
