"""Find the clips to prepare: in video files, folders of any layout and lists of clips.

A list of clips is a CSV file with a column `video`, relative to the list's folder or absolute, and any of the others:

    video,start,end,name,identity,crop
    talks/anna.mp4,12.5,00:41,anna_000,anna,466 0 535

`start` and `end` are seconds or clocks (1:02:03.5); `crop` is the square x, y, side that holds the face, in pixels of
the video. Names and identities that are not given come from the video's path.
"""

import csv
import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop
from difftalk_pl.files import replacing

IdentityRule = Literal["auto", "name", "folder", "top", "prefix"]
NameRule = Literal["auto", "stem", "path"]

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"),
}
COLUMNS = ("video", "start", "end", "name", "identity", "crop")
TIME = re.compile(r"(\d+:){0,2}\d+(\.\d*)?")
HDTF = re.compile(r"(RD|WDA|WRA)_(\w+?)(?:_\d{3})?")  # WRA_AdamKinzinger2_000.mp4
VOXCELEB_MEAD = re.compile(r"(?:.*/)?(?:(id\d{5})/(?:[^/]+/)?[^/]+|([MW]\d{3})/video/.+)")  # id10001/1zcIwhmdeo4/1.mp4
LRS = ("main", "pretrain", "trainval", "test")  # main/5535415699068794046/00001.mp4
PREFIX = re.compile(r"(.+?)(?:[_-]\d+)+")  # M2Ohb0FAaJU_1.mp4


class ClipSource(NamedTuple):
    """The part of a video that becomes a clip: seconds `start` to `end`, to the video's end if `end` is None."""

    name: str
    video: Path
    start: float = 0.0
    end: float | None = None
    identity: str = ""
    crop: Crop | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end is None


def find_sources(paths: Iterable[Path], identity: IdentityRule = "auto", names: NameRule = "auto") -> list[ClipSource]:
    """Find the clips of lists (.csv), videos, and folders that are searched for videos, sorted by name.

    Raises:
        UserError: a path does not exist, nothing is found, a list is wrong, or two clips have one name.
    """
    paths = list(paths)
    lists = [path for path in paths if path.suffix.lower() == ".csv" and path.is_file()]
    found = [source for path in lists for source in read_clip_list(path, identity, names)]
    for video, below in search_videos(path for path in paths if path not in lists):
        name = clip_name(video, below, names)
        found.append(ClipSource(name, video, identity=identity_of(video, below, name, identity)))
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no videos ({' '.join(sorted(VIDEO_SUFFIXES))})")
    known: dict[str, ClipSource] = {}
    for source in found:
        if not source.name or source.name.startswith(".") or "/" in source.name or not source.name.isprintable():
            raise UserError(f"{source.video}: {source.name!r} cannot be a folder's name; use letters, digits, - and _")
        if (other := known.setdefault(source.name, source)) is not source:
            raise UserError(
                f"{other.video} and {source.video} would both be clip {source.name!r}: give --names path with the "
                "folder above both, or rename one of them"
            )
    return sorted(found)


def find_videos(paths: Iterable[Path]) -> dict[str, Path]:
    """Find videos by their names without suffix, sorted, as `find_sources` does."""
    return {source.name: source.video for source in find_sources(paths, names="stem")}


def search_videos(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Find videos, each with the folder below which it was found; a file that is reached twice counts once.

    Hidden files and folders are left out, links to folders are followed.
    """
    seen: set[str] = set()
    for path in map(Path.absolute, paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        below = path if path.is_dir() else path.parent
        found = sorted(glob.glob("**", root_dir=path, recursive=True)) if path.is_dir() else [path.name]
        for video in (below / name for name in found):
            is_video = video == path or (video.suffix.lower() in VIDEO_SUFFIXES and video.is_file())
            if is_video and (real := os.path.realpath(video)) not in seen:
                seen.add(real)
                yield video, below


def clip_name(video: Path, below: Path, rule: NameRule) -> str:
    """Name the clip of a whole video that was found below a folder; see `prepare`."""
    by_path = rule == "path" or (rule == "auto" and video.stem.isdecimal())
    return "_".join([*_folders(video, below), video.stem]) if by_path else video.stem


def identity_of(video: Path, below: Path, name: str, rule: IdentityRule) -> str:
    """Tell who is in a video that was found below a folder and whose clip has this name; see `prepare`."""
    if rule == "auto":
        return _known_person(video, below) or name
    if rule == "top":
        return next(iter(_folders(video, below)), below.name)
    found = PREFIX.fullmatch(video.stem) if rule == "prefix" else None
    return found[1] if found else video.parent.name if rule == "folder" else name


def _known_person(video: Path, below: Path) -> str | None:
    """Tell who is in a video of HDTF, VoxCeleb, MEAD or LRS."""
    if found := HDTF.fullmatch(video.stem):
        return person_of(found[1], found[2])
    if found := VOXCELEB_MEAD.fullmatch(video.as_posix()):
        return found[1] or found[2]
    is_lrs = video.parent.parent.name in LRS or video.with_suffix(".txt").exists()
    return video.parent.name if is_lrs and video.stem.isdecimal() and video.parent != below else None


def _folders(video: Path, below: Path) -> tuple[str, ...]:
    return video.relative_to(below).parent.parts if video.is_relative_to(below) else ()


def person_of(source: str, video: str) -> str:
    """Tell whom a video of HDTF's RD, WDA or WRA shows: AdamKinzinger0 to 2 are one person; RD's Radio1, … are not."""
    name = video if source == "RD" else video.rstrip("0123456789") or video
    return "JamesClyburn" if name == "WhipJimClyburn" else name


def read_clip_list(path: Path, identity: IdentityRule = "auto", names: NameRule = "auto") -> list[ClipSource]:
    """Read a list of clips; whether the videos exist is not checked.

    Raises:
        UserError: unreadable, unknown columns, or a row that is no clip; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    if "video" not in columns or set(columns) - set(COLUMNS):
        raise UserError(f"{path}: columns {', '.join(columns)}; expected video and any of {', '.join(COLUMNS[1:])}")
    sources = []
    for line, row in enumerate(rows, 2):
        try:
            sources.append(_parse_row(path.absolute().parent, row, identity, names))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {line}: {error}") from error
    return sources


def _parse_row(folder: Path, cells: dict[str, str], rule: IdentityRule, names: NameRule) -> ClipSource:
    video, start, end, name, identity, crop = (cells.pop(column, "").strip() for column in COLUMNS)
    path, begin, until = folder / video, seconds_of(start or "0"), seconds_of(end) if end else None
    if cells or not video or (until is not None and until <= begin):
        raise ValueError(f"video {video!r} from {start!r} to {end!r} is no clip, or there are too many cells")
    whole = clip_name(path, folder, names)
    identity = identity or identity_of(path, folder, whole, rule)
    name = name or (whole if not start and not end else f"{whole}_{round(1000 * begin):08d}")
    return ClipSource(name, path, begin, until, identity, Crop(*map(int, crop.split())) if crop else None)


def seconds_of(time: str) -> float:
    """Convert 12.5, 01:35 or 1:02:03.5 to seconds. Raises ValueError for anything else."""
    if not TIME.fullmatch(time.strip()):
        raise ValueError(f"{time!r} is no time; expected seconds or a clock such as 1:02:03.5")
    return sum(float(part) * 60**place for place, part in enumerate(reversed(time.split(":"))))


def write_clip_list(path: Path, sources: Iterable[ClipSource]) -> None:
    """Write a list of clips; videos below its folder become relative."""
    folder = path.absolute().parent
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, video, start, end, identity, crop in sources:
            shown = video.relative_to(folder) if video.is_relative_to(folder) else video
            writer.writerow([shown, start or "", end or "", name, identity, " ".join(map(str, crop or ()))])
