"""HDTF's published annotation tables as typed rows: which seconds of which videos, and where the face is in them.

Five tables a source (RD, WDA, WRA): addresses, times, crop windows, zoom ratios, resolutions. Names end in `.mp4` in
some of them; one has a byte-order mark; a video may lack its times, and a clip its window.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from difftalk_pl.errors import UserError

SOURCES = ("RD", "WDA", "WRA")
TABLES = {"url": "video_url", "times": "annotion_time", "crop": "crop_wh", "ratio": "crop_ratio", "lines": "resolution"}
SUFFIX = ".mp4"


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
    """All videos with times, in the order of the tables.

    Raises:
        UserError: a table is missing, or a line is not of its form; names file and line.
    """
    return [video for source in SOURCES for video in _read_source(folder, source)]


def _read_source(folder: Path, source: str) -> list[HDTFVideo]:
    tables = {key: _read_table(folder / f"{source}_{name}.txt") for key, name in TABLES.items()}
    videos = []
    for name, times in tables["times"].items():
        if name not in tables["url"]:
            raise UserError(f"{folder}/{source}_{TABLES['times']}.txt: {name} has times and no address")
        lines = int(tables["lines"].get(name, ["0"])[0])
        clips = tuple(_clip(tables, source, name, number, span) for number, span in enumerate(times))
        videos.append(HDTFVideo(name, source, tables["url"][name][0], lines or None, clips))
    return videos


def _clip(tables: dict[str, dict[str, list[str]]], source: str, video: str, number: int, span: str) -> HDTFClip:
    found = re.fullmatch(r"([\d:]+)-([\d:]+)", span)
    if found is None or _seconds(found[2]) <= _seconds(found[1]):
        raise UserError(f"{source}_{TABLES['times']}.txt: {video}: {span!r} is no span of time such as 00:20-01:35")
    window, ratio = (tables[key].get(f"{video}_{number}") for key in ("crop", "ratio"))
    return HDTFClip(
        video,
        source,
        number,
        _seconds(found[1]),
        _seconds(found[2]),
        Window(*map(int, window)) if window else None,
        float(ratio[0]) if ratio else None,
    )


def _seconds(clock: str) -> float:
    """01:35 or 1:02:03."""
    return sum(int(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


def _read_table(path: Path) -> dict[str, list[str]]:
    """Columns after the name, by the name without its suffix."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the folder with HDTF's annotation tables") from error
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise UserError(f"{path}: line {number} has a name and nothing else")
    return {row[0].removesuffix(SUFFIX): row[1:] for row in rows}
