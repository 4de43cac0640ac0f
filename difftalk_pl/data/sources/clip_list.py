"""Lists of clips: a CSV that says which seconds of which videos are clips, and who is in them.

    video,start,stop,name,identity
    talks/anna.mp4,12.5,00:41,anna_000,anna

`video` is relative to the list's folder, or absolute. All other columns may be missing or empty: `start` and `stop` are
seconds or clocks (1:02:03.5) and mean the whole video, `name` is made of the video's and of `start`, `identity` is what
the video's path says (`naming`), so that the clips of one video are of one person. Further columns are left alone.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.data.sources.naming import (
    IdentityRule,
    NameRule,
    check_name,
    clip_name,
    identity_of,
    part_name,
    same_folder,
)
from difftalk_pl.errors import UserError

COLUMNS = ("video", "start", "stop", "name", "identity")
MISNAMED = {  # columns of other lists that must not be passed over
    **dict.fromkeys(("start_time", "start_sec", "start_s", "begin", "from", "start_frame"), "start"),
    **dict.fromkeys(
        ("end", "end_time", "end_sec", "end_s", "stop_time", "to", "until", "duration", "end_frame"), "stop"
    ),
    **dict.fromkeys(("person", "speaker", "speaker_id", "person_id", "subject"), "identity"),
}
CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]*)?)")
DIGITS = 6  # of a second in a written list: frames are due to a millionth


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


def read_clip_list(path: Path, identity: IdentityRule = "auto", names: NameRule = "auto") -> list[Piece]:
    """The clips in the order of their lines. Whether their videos are there is left to whoever reads them.

    Args:
        identity, names: for the rows that do not say them, as `naming` has it.

    Raises:
        UserError: unreadable, another header, a row that is no clip, or a name that two rows have; names the line.
    """
    pieces: dict[str, Piece] = {}
    for line, row in _rows(path):
        try:
            piece = _piece(path.absolute().parent, row, identity, names)
        except ValueError as error:
            raise UserError(f"{path}: line {line}: {error}") from error
        key = same_folder(piece.name)
        if key in pieces:
            raise UserError(f"{path}: line {line}: a second clip {piece.name!r}; give names in the column name")
        pieces[key] = piece
    if not pieces:
        raise UserError(f"{path}: no clips in it; expected a line for each, below the header {','.join(COLUMNS)}")
    return list(pieces.values())


def write_clip_list(path: Path, pieces: Iterable[Piece]) -> None:
    """Written aside and renamed; videos below its folder become relative."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for piece in pieces:
            start = "" if piece.is_whole else _decimal(piece.start)
            stop = "" if piece.stop is None else _decimal(piece.stop)
            writer.writerow([_relative(piece.video, path.parent), start, stop, piece.name, piece.identity])


def seconds_of(clock: str) -> float:
    """12.5, 01:35 or 1:02:03.5 in seconds. Raises ValueError for anything else."""
    found = CLOCK.fullmatch(clock)
    try:
        seconds = float(clock) if found is None else _sum_of(*found.groups())
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{clock!r} is no time; expected seconds or a clock such as 1:02:03.5")
    return seconds


def _sum_of(hours: str | None, minutes: str, seconds: str) -> float:
    if float(seconds) >= 60 or (hours is not None and int(minutes) >= 60):
        raise ValueError
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> cell) below the header; blank lines are passed over."""
    lines = _lines(path)
    _, header = next(lines, (1, []))
    columns = [column.lower() for column in header]
    _check_header(path, columns)
    for line, cells in lines:
        if any(cells[len(columns) :]):
            raise UserError(
                f"{path}: line {line}: {len(cells)} cells below {len(columns)} columns; a comma within a cell needs "
                'quotes ("a, b.mp4"), a decimal comma has to be a point'
            )
        yield line, dict(zip(columns, cells))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, cells without blanks around them) of the lines that hold something."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); expected a CSV with a column video") from error


def _check_header(path: Path, columns: list[str]) -> None:
    there = ", ".join(columns) or "none"
    expected = f"the first line has to name {', '.join(COLUMNS)}, of which video is needed"
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        raise UserError(f"{path}: its columns are not parted by commas; {expected}")
    if "video" not in columns:
        raise UserError(f"{path}: no column video, its columns are {there}; {expected}")
    if double := {column for column in COLUMNS if columns.count(column) > 1}:
        raise UserError(f"{path}: two columns {', '.join(sorted(double))}; {expected}")
    for column in columns:
        if (meant := MISNAMED.get(column)) is not None and meant not in columns:
            form = "" if meant == "identity" else " (seconds in the video, or a clock)"
            raise UserError(
                f"{path}: the column {column} is not known; give {meant}{form} in its place, or take it out"
            )


def _piece(folder: Path, row: dict[str, str], identity: IdentityRule, names: NameRule) -> Piece:
    if not row.get("video") or "\0" in row["video"]:
        raise ValueError("no video")
    video = folder / row["video"]
    start = seconds_of(row["start"]) if row.get("start") else 0.0
    stop = seconds_of(row["stop"]) if row.get("stop") else None
    if stop is not None and stop <= start:
        raise ValueError(f"it ends at {stop:g} s and begins at {start:g} s")
    whole = clip_name(video, folder, names)
    name = row.get("name") or (
        whole if start == 0 and stop is None else part_name(whole, f"_{round(1000 * start):08d}")
    )
    check_name(name)
    return Piece(name, video, start, stop, row.get("identity") or identity_of(video, folder, whole, identity))


def _decimal(seconds: float) -> str:
    return f"{seconds:.{DIGITS}f}".rstrip("0").rstrip(".")


def _relative(video: Path, folder: Path) -> str:
    absolute, base = video.absolute(), folder.absolute()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else str(absolute)
