"""HDTF's published annotation tables as typed rows: which seconds of which videos, and where the face is in them.

Five tables a source (RD, WDA, WRA): addresses, times, crop windows, zoom ratios, resolutions. Names end in `.mp4` in
some of them; one has a byte-order mark; a video may lack its times, and a clip its window.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from difftalk_pl.errors import UserError

SOURCES = ("RD", "WDA", "WRA")
TABLES = {"url": "video_url", "times": "annotion_time", "crop": "crop_wh", "ratio": "crop_ratio", "lines": "resolution"}
SUFFIX = ".mp4"
SPAN = re.compile(r"(\d+:){1,2}\d+-(\d+:){1,2}\d+")
Number = TypeVar("Number", int, float)


class Window(NamedTuple):
    """The published crop, pixels at the published resolution."""

    x: int
    width: int
    y: int
    height: int


@dataclass(frozen=True)
class HDTFClip:
    """One clip of a video.

    Args:
        number: among the clips of its video.
        start, stop: seconds.
        window: None where the tables have none.
        ratio: of the square to the face, as published; None likewise.
    """

    video: str
    source: str
    number: int
    start: float
    stop: float
    window: Window | None = None
    ratio: float | None = None

    @property
    def name(self) -> str:
        """As HDTF's own files are called: RD_Radio1_000."""
        return f"{self.source}_{self.video}_{self.number:03d}"

    @property
    def seconds(self) -> float:
        return self.stop - self.start


@dataclass(frozen=True)
class HDTFVideo:
    """One address and its clips; `lines` is the published resolution, None where it says nothing."""

    name: str
    source: str
    url: str
    lines: int | None
    clips: tuple[HDTFClip, ...]


def read_annotations(folder: Path) -> list[HDTFVideo]:
    """All videos with times, in the order of the tables; `untimed` names the others.

    Raises:
        UserError: a table is missing, a line is not of its form, or a name occurs twice; names file and line.
    """
    videos: dict[str, HDTFVideo] = {}
    for source in SOURCES:
        for video in _read_source(folder, source):
            if video.name in videos:
                raise UserError(
                    f"{folder}: {video.name} is a video of {videos[video.name].source} and of {source}; a name may "
                    "stand for one video only, since its file is called so"
                )
            videos[video.name] = video
    return list(videos.values())


def untimed(folder: Path) -> list[str]:
    """Videos with an address and no times, so without clips."""
    tables = [[_read_table(_path(folder, source, key)) for key in ("url", "times")] for source in SOURCES]
    return [name for addresses, times in tables for name in addresses if name not in times]


def _path(folder: Path, source: str, key: str) -> Path:
    return folder / f"{source}_{TABLES[key]}.txt"


def _read_source(folder: Path, source: str) -> list[HDTFVideo]:
    paths = {key: _path(folder, source, key) for key in TABLES}
    tables = {key: _read_table(path) for key, path in paths.items()}
    videos = []
    for name, times in tables["times"].items():
        if name not in tables["url"]:
            raise UserError(f"{paths['times']}: {name} has times and no address")
        lines = _numbers(paths["lines"], name, tables["lines"].get(name, ["0"]), int, 1)[0]
        clips = tuple(_clip(paths, tables, source, name, number, span) for number, span in enumerate(times))
        videos.append(HDTFVideo(name, source, tables["url"][name][0], int(lines) or None, clips))
    return videos


def _clip(
    paths: dict[str, Path], tables: dict[str, dict[str, list[str]]], source: str, video: str, number: int, span: str
) -> HDTFClip:
    start, stop = map(_seconds, span.split("-", 1)) if SPAN.fullmatch(span) else (0, 0)
    if stop <= start:
        raise UserError(f"{paths['times']}: {video}: {span!r} is no span of time such as 00:20-01:35")
    key = f"{video}_{number}"
    window, ratio = tables["crop"].get(key), tables["ratio"].get(key)
    return HDTFClip(
        video,
        source,
        number,
        start,
        stop,
        Window(*_numbers(paths["crop"], key, window, int, 4)) if window else None,
        _numbers(paths["ratio"], key, ratio, float, 1)[0] if ratio else None,
    )


def _numbers(path: Path, name: str, columns: list[str], kind: type[Number], count: int) -> list[Number]:
    """So many, none of them below zero."""
    try:
        numbers = [kind(column) for column in columns]
    except ValueError:
        numbers = []
    if len(numbers) != count or min(numbers) < 0:
        raise UserError(f"{path}: {name}: expected {count} numbers, found {' '.join(columns)!r}")
    return numbers


def _seconds(clock: str) -> float:
    """01:35 or 1:02:03."""
    return sum(int(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


def _read_table(path: Path) -> dict[str, list[str]]:
    """Columns after the name, by the name without its suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: {reason}; give the folder with HDTF's annotation tables") from error
    table: dict[str, list[str]] = {}
    for number, (first, *columns) in ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip()):
        name = first.removesuffix(SUFFIX)
        if not columns:
            raise UserError(f"{path}: line {number} has a name and nothing else")
        if name in table:
            raise UserError(f"{path}: line {number}: {name} has a line already")
        if name != Path(name).name or name.startswith("."):
            raise UserError(f"{path}: line {number}: the name {name!r} cannot be a file's")
        table[name] = columns
    return table
