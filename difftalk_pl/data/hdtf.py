"""HDTF's published annotation tables, and the command `hdtf clips` that turns them into a list of clips.

Each source (RD, WDA, WRA) has tables of addresses, times, crop windows and resolutions. Names end in `.mp4` in some of
them; a video may lack its times, and a clip its window.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
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
    """One clip of a video; `window` is the published square, pixels at the published resolution, or None."""

    name: str  # as HDTF's own files: RD_Radio1_000
    video: str
    source: str
    start: float
    end: float
    window: Crop | None = None

    @property
    def seconds(self) -> float:
        return self.end - self.start


class HDTFVideo(NamedTuple):
    """An address and its clips; `lines` is the published resolution, None if it is not known."""

    name: str
    source: str
    url: str
    lines: int | None
    clips: tuple[HDTFClip, ...]


def read_annotations(folder: Path) -> list[HDTFVideo]:
    """Read all videos that have times, in the order of the tables. Raises UserError naming the table or the video."""
    videos = []
    for source in SOURCES:
        tables = {key: _read_table(folder / f"{source}_{table}.txt") for key, table in TABLES.items()}
        for name, spans in tables["times"].items():
            try:
                clips = tuple(_clip(source, name, k, span, tables["crop"]) for k, span in enumerate(spans))
                lines = int(tables["lines"].get(name, ["0"])[0]) or None
                videos.append(HDTFVideo(name, source, tables["url"][name][0], lines, clips))
            except (ValueError, LookupError) as error:
                raise UserError(f"{folder}: {source}: {name}: no address or not in HDTF's form: {error}") from error
    return videos


def _clip(source: str, video: str, number: int, span: str, crops: dict[str, list[str]]) -> HDTFClip:
    start, end = map(seconds_of, span.split("-"))
    if end <= start:
        raise ValueError(f"{span} ends before it begins")
    window = crops.get(f"{video}_{number}")
    x, width, y, _ = map(int, window or (0, 0, 0, 0))
    return HDTFClip(f"{source}_{video}_{number:03d}", video, source, start, end, Crop(x, y, width) if window else None)


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
    tables = read_annotations(annotations)
    files: dict[str, Path] = {}
    for path, _ in search_videos([videos]):
        if (other := files.setdefault(path.stem.lower(), path)) != path:
            log.warning("%s: left out, since %s has its name", path, other)
        if found := DOWNLOADED.fullmatch(path.stem):
            files.setdefault(f"id={found[1]}", path)
    sources = {source.name: source for video in tables for source in _sources_of(video, files)}
    if not sources:
        raise UserError(f"{videos}: none of HDTF's {len(tables)} videos is there; run hdtf download first")
    write_clip_list(out, sources.values())
    _show([clip for video in tables for clip in video.clips], sources)


def _sources_of(video: HDTFVideo, files: dict[str, Path]) -> Iterator[ClipSource]:
    """Find the clips of a video whose file is there, or that were cut by others."""
    address, person = ADDRESS.search(video.url), person_of(video.source, video.name)
    both = f"{video.source}_{video.name}"
    whole = _first(files, both, video.name) or files.get(f"id={address[1]}" if address else "")
    try:
        height = probe(whole).height if whole else 0
    except MediaError as error:
        log.warning("left out: %s", error)
        height = 0
    for number, clip in enumerate(video.clips):
        if whole and height:
            scale = height / (video.lines or height)
            crop = Crop(*(round(scale * pixels) for pixels in clip.window)) if clip.window else None
            yield ClipSource(clip.name, whole, clip.start, clip.end, person, crop)
        elif cut := _first(files, clip.name, f"{both}_{number}", f"{video.name}_{number}"):
            yield ClipSource(clip.name, cut, identity=person)


def _first(files: dict[str, Path], *names: str) -> Path | None:
    return next((files[name.lower()] for name in names if name.lower() in files), None)


def _show(clips: Iterable[HDTFClip], found: Iterable[str]) -> None:
    """Print videos, clips and hours of each source, in the tables and found, and the videos that are missing."""
    table = pd.DataFrame([(*clip[1:3], clip.seconds / 3600) for clip in clips], [clip.name for clip in clips])
    table.columns = pd.Index(["video", "source", "hours"])
    table["found"] = table.index.isin(list(found))
    lines = {}
    for source in (*SOURCES, "all"):
        some = table if source == "all" else table[table.source == source]
        for part, there in (("", some), (" found", some[some.found])):
            numbers = [there.video.nunique(), len(there), round(there.hours.sum(), 2)]
            lines[source + part] = [f"{number:g}" for number in numbers]
    out = Console()
    out.print(pd.DataFrame(lines, ["videos", "clips", "hours"]).T.to_string())
    if len(missing := table[~table.found]):
        out.print(f"missing: {', '.join(missing.video.unique())}", soft_wrap=True)
