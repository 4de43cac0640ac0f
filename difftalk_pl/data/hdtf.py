"""HDTF's published annotation tables, and the command `hdtf clips` that turns them into a list of clips.

Each source (RD, WDA, WRA) has tables of addresses, times, crop windows and resolutions. Names end in `.mp4` in some of
them; a video may lack its times, and a clip its window.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from difftalk_pl.data.sources import ClipSource, person_of, search_videos, seconds_of, write_clip_list
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.video import probe

log = logging.getLogger(__name__)

SOURCES = ("RD", "WDA", "WRA")
TABLES = {"url": "video_url", "times": "annotion_time", "crop": "crop_wh", "lines": "resolution"}
ADDRESS = re.compile(r"(?:v=|youtu\.be/|shorts/|embed/)([\w-]{11})(?![\w-])")
DOWNLOADED = re.compile(r"(?:^|.*\[|.*-)([\w-]{11})\]?")  # ID, Title [ID] and Title-ID, as downloaders name files


class HDTFClip(NamedTuple):
    """One clip of a video; times in seconds.

    Args:
        lines: the published resolution of the video; None if it is not known.
        window: the published square, pixels at that resolution; None if there is none.
    """

    source: str
    video: str
    number: int
    url: str
    lines: int | None
    start: float
    end: float
    window: Crop | None

    @property
    def name(self) -> str:
        """Return the name of HDTF's own file: RD_Radio1_000."""
        return f"{self.source}_{self.video}_{self.number:03d}"


def read_annotations(folder: Path) -> list[HDTFClip]:
    """Read all clips, in the order of the tables. Raises UserError naming the table or the video."""
    clips = []
    for source in SOURCES:
        tables = {key: _read_table(folder / f"{source}_{table}.txt") for key, table in TABLES.items()}
        for video, spans in tables["times"].items():
            try:
                clips += [_clip(tables, source, video, number, span) for number, span in enumerate(spans)]
            except (ValueError, LookupError) as error:
                problem = f"no address or not in HDTF's form: {error}"
                raise UserError(f"{folder}: {source}: {video}: {problem}") from error
    return clips


def _clip(tables: dict[str, dict[str, list[str]]], source: str, video: str, number: int, span: str) -> HDTFClip:
    start, end = map(seconds_of, span.split("-"))
    if end <= start:
        raise ValueError(f"{span} ends before it begins")
    lines, window = int(tables["lines"].get(video, ["0"])[0]), tables["crop"].get(f"{video}_{number}")
    x, width, y, _ = map(int, window or (0, 0, 0, 0))
    crop = Crop(x, y, width) if window else None
    return HDTFClip(source, video, number, tables["url"][video][0], lines or None, start, end, crop)


def _read_table(path: Path) -> dict[str, list[str]]:
    """Read the columns after the name, by the name without its suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # WDA_video_url begins with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; give the folder with HDTF's annotation tables") from error
    rows = (line.split() for line in lines if line.strip())
    return {name.removesuffix(".mp4"): columns for name, *columns in rows}


def hdtf_clips(annotations: Path, videos: Path, out: Path) -> None:
    """Write the list of HDTF's clips for prepare: spans, people and published crops of the videos that are there.

    Videos are found by their usual names: RD_Radio1, Radio1, or the ID of the address, alone or at the end of the name.
    Clips that were cut by others (RD_Radio1_000, Radio1_0) are taken if the whole video is not there.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        videos: The folder that is searched for the videos.
        out: The list to write, a CSV file.
    """
    clips, files = read_annotations(annotations), dict[str, Path]()
    for path, _ in search_videos([videos]):
        if (other := files.setdefault(path.stem.lower(), path)) != path:
            log.warning("%s: left out, since %s has its name", path, other)
        if found := DOWNLOADED.fullmatch(path.stem):
            files.setdefault(f"id={found[1]}", path)
    sources = [source for clip in clips for source in _find(clip, files)]
    if not sources:
        raise UserError(f"{videos}: none of HDTF's videos is there; run hdtf download first")
    write_clip_list(out, sources)
    _show(clips, {source.name for source in sources})


def _find(clip: HDTFClip, files: dict[str, Path]) -> Iterator[ClipSource]:
    """Find a clip in its video, or a file that holds this clip alone."""
    both, address, person = f"{clip.source}_{clip.video}", ADDRESS.search(clip.url), person_of(clip.source, clip.video)
    whole = _first(files, both, clip.video) or files.get(f"id={address[1]}" if address else "")
    if whole and (height := _height(whole)):
        scale = height / (clip.lines or height)
        crop = Crop(*(round(scale * pixels) for pixels in clip.window)) if clip.window else None
        yield ClipSource(clip.name, whole, clip.start, clip.end, person, crop)
    elif cut := _first(files, clip.name, f"{both}_{clip.number}", f"{clip.video}_{clip.number}"):
        yield ClipSource(clip.name, cut, identity=person)


def _first(files: dict[str, Path], *names: str) -> Path | None:
    return next((files[name.lower()] for name in names if name.lower() in files), None)


@lru_cache
def _height(video: Path) -> int:
    try:
        return probe(video).height
    except MediaError as error:
        log.warning("left out: %s", error)
        return 0


def _show(clips: Sequence[HDTFClip], found: set[str]) -> None:
    """Print videos, clips and hours of each source, in the tables and found, and the videos that are missing."""
    out = Console()
    for source in (*SOURCES, ""):
        some = [clip for clip in clips if clip.source.startswith(source)]
        here = [clip for clip in some if clip.name in found]
        out.print(f"{source or 'all'}: {_count(some)}; found {_count(here)}", highlight=False)
    if missing := {clip.video: None for clip in clips if clip.name not in found}:
        out.print(f"missing: {', '.join(missing)}", soft_wrap=True, highlight=False)


def _count(clips: Sequence[HDTFClip]) -> str:
    hours = sum(clip.end - clip.start for clip in clips) / 3600
    return f"{len({clip.video for clip in clips})} videos, {len(clips)} clips, {hours:.2f} h"
