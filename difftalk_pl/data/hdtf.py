"""HDTF's published annotation tables, and the command `hdtf clips` that turns them into a list of clips.

Each source (RD, WDA, WRA) has tables of addresses, times, crop windows and resolutions. Names end in `.mp4` in some of
them; a video may lack its times, and a clip its window.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

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
NAMED = 12  # missing videos that are named


class HDTFClip(NamedTuple):
    """One clip of a video.

    Args:
        number: among the clips of its video.
        start, end: seconds.
        window: the published square x, y, side, pixels at the published resolution; None if the tables have none.
    """

    video: str
    source: str
    number: int
    start: float
    end: float
    window: Crop | None = None

    @property
    def name(self) -> str:
        """Name the clip as HDTF's own files: RD_Radio1_000."""
        return f"{self.source}_{self.video}_{self.number:03d}"

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
    """Read all videos that have times, in the order of the tables. Raises UserError naming the table and the video."""
    videos = []
    for source in SOURCES:
        tables = {key: _read_table(folder / f"{source}_{table}.txt") for key, table in TABLES.items()}
        for name, spans in tables["times"].items():
            try:
                clips = tuple(_clip(source, name, k, span, tables["crop"]) for k, span in enumerate(spans))
                lines = int(tables["lines"].get(name, ["0"])[0]) or None
                videos.append(HDTFVideo(name, source, tables["url"][name][0], lines, clips))
            except (ValueError, TypeError, LookupError) as error:
                raise UserError(
                    f"{folder}/{source}_*.txt: {name}: no address, or not of HDTF's form: {error}"
                ) from error
    return videos


def _clip(source: str, video: str, number: int, span: str, crops: dict[str, list[str]]) -> HDTFClip:
    start, end = map(seconds_of, span.split("-"))
    if end <= start:
        raise ValueError(f"{span!r} is no span of time")
    window = crops.get(f"{video}_{number}")
    x, width, y, _ = map(int, window or (0, 0, 0, 0))
    return HDTFClip(video, source, number, start, end, Crop(x, y, width) if window else None)


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
    if not videos.is_dir():
        raise UserError(f"{videos}: no such folder; run hdtf download first")
    files = _files_by_name(path for path, _ in search_videos([videos]))
    sources, missing = list[ClipSource](), list[str]()
    for video in tables:
        found = list(_sources_of(video, files))
        sources += found
        missing += [] if len(found) == len(video.clips) else [video.name]
    if not sources:
        raise UserError(f"{videos}: none of HDTF's {len(tables)} videos is there; run hdtf download first")
    write_clip_list(out, sources)
    _show(tables, {source.name for source in sources})
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        log.warning("missing: %s%s", ", ".join(missing[:NAMED]), more)


def _files_by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Find files by their names in lower case, and by the ID of an address in them."""
    files: dict[str, Path] = {}
    for path in paths:
        if (other := files.setdefault(path.stem.lower(), path)) is not path:
            log.warning("%s: left out, since %s has its name", path, other)
        if found := DOWNLOADED.fullmatch(path.stem):
            files.setdefault(f"id={found[1]}", path)
    return files


def _sources_of(video: HDTFVideo, files: dict[str, Path]) -> Iterable[ClipSource]:
    """Find the clips of a video whose file is there, or that were cut by others."""
    address, person = ADDRESS.search(video.url), person_of(video.source, video.name)
    names = [f"{video.source}_{video.name}".lower(), video.name.lower(), f"id={address[1]}" if address else ""]
    whole = next((files[name] for name in names if name in files), None)
    height = _height(whole) if whole is not None else None
    for clip in video.clips:
        if whole is not None and height:
            crop = scale_window(clip.window, video.lines, height) if clip.window else None
            yield ClipSource(clip.name, whole, clip.start, clip.end, person, crop)
            continue
        cut = [clip.name, f"{video.source}_{video.name}_{clip.number}", f"{video.name}_{clip.number}"]
        if ready := next((files[name.lower()] for name in cut if name.lower() in files), None):
            yield ClipSource(clip.name, ready, identity=person)


def _height(path: Path) -> int | None:
    try:
        return probe(path).height
    except MediaError as error:
        log.warning("left out: %s", error)
        return None


def scale_window(window: Crop, lines: int | None, height: int) -> Crop:
    """Scale a window of a picture of so many lines to the same picture of another height."""
    scale = height / (lines or height)
    return Crop(*(round(number * scale) for number in window))


def _show(videos: Iterable[HDTFVideo], found: set[str]) -> None:
    """Print videos, clips and hours of each source, in the tables and found."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0] * 6)
    for video in videos:
        here = [clip for clip in video.clips if clip.name in found]
        both = [(video.clips, 1), (here, bool(here))]
        for row in (counts[video.source], counts["all"]):
            numbers = [n for clips, one in both for n in (one, len(clips), sum(c.seconds for c in clips) / 3600)]
            row[:] = [a + b for a, b in zip(row, numbers, strict=True)]
    table = Table("source", "videos", "clips", "hours", "found", "clips", "hours", box=None, pad_edge=False)
    for source in (*SOURCES, "all"):
        table.add_row(source, *(f"{n:.2f}" if k % 3 == 2 else f"{n:.0f}" for k, n in enumerate(counts[source])))
    Console().print(table)
