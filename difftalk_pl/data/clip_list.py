"""Lists of clips: a CSV that says which seconds of which videos are clips, and who is in them.

    video,start,stop,name,identity
    talks/anna.mp4,12.5,00:41,anna_000,anna

`video` is relative to the list's folder, or absolute. All other columns may be missing or empty: `start` and `stop` are
seconds or clocks (1:02:03.5) and mean the whole video, `name` is made of the video's, `identity` is the name.
Further columns are left alone.
"""

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from difftalk_pl.errors import UserError


class Piece(NamedTuple):
    """A part of a video that is to be a clip; seconds, to its end where `stop` is None."""

    name: str
    video: Path
    start: float = 0.0
    stop: float | None = None
    identity: str = ""

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop is None


def read_clip_list(path: Path) -> list[Piece]:
    """Raises UserError for a row that is no clip, or a name that two rows have; names the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a CSV with a column video") from error
    pieces: dict[str, Piece] = {}
    for line, row in enumerate(rows, 2):
        try:
            piece = _piece(path, {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)})
        except ValueError as error:
            raise UserError(f"{path}: line {line}: {error}") from error
        if piece.name in pieces:
            raise UserError(f"{path}: line {line}: a second clip {piece.name!r}; give names in the column name")
        pieces[piece.name] = piece
    if not pieces:
        raise UserError(f"{path}: no clips in it; expected a CSV with columns video, start, stop, name, identity")
    return list(pieces.values())


def write_clip_list(path: Path, pieces: Iterable[Piece]) -> None:
    """Written aside and renamed; videos below its folder become relative."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video", "start", "stop", "name", "identity"])
            for piece in pieces:
                writer.writerow(
                    [
                        _relative(piece.video, path.parent),
                        "" if piece.is_whole else f"{piece.start:.3f}",
                        "" if piece.stop is None else f"{piece.stop:.3f}",
                        piece.name,
                        piece.identity,
                    ]
                )
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def seconds_of(clock: str) -> float:
    """12.5, 01:35 or 1:02:03.5 in seconds. Raises ValueError for anything else."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", clock):
        raise ValueError(f"{clock!r} is no time; expected seconds or a clock such as 1:02:03.5")
    return sum(float(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


def _piece(path: Path, row: dict[str, str]) -> Piece:
    if not row.get("video"):
        raise ValueError("no video")
    video = path.parent / row["video"]
    start = seconds_of(row["start"]) if row.get("start") else 0.0
    stop = seconds_of(row["stop"]) if row.get("stop") else None
    if stop is not None and stop <= start:
        raise ValueError(f"it ends at {stop:g} s and begins at {start:g} s")
    name = row.get("name") or (video.stem if start == 0 and stop is None else f"{video.stem}_{round(1000 * start):08d}")
    if name != Path(name).name or name.startswith("."):
        raise ValueError(f"the name {name!r} cannot be a folder's; take letters, digits, - and _")
    return Piece(name, video, start, stop, row.get("identity") or name)


def _relative(video: Path, folder: Path) -> str:
    absolute, base = video.absolute(), folder.absolute()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else str(absolute)
