"""Find the clips to prepare: in video files, folders of any layout and lists of clips.

A list of clips is a CSV file with a column `video`, relative to the list's folder or absolute, and any of the others:

    video,start,end,name,identity,crop
    talks/anna.mp4,12.5,00:41,anna_000,anna,466 0 535

`start` and `end` are seconds or clocks (1:02:03.5); `crop` is the square x, y, side that holds the face, in pixels of
the video. Names and identities that are not given come from the video's path.
"""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop
from difftalk_pl.files import read_csv, write_csv
from difftalk_pl.media.video import read_frames

IdentityRule = Literal["auto", "name", "folder"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv")
COLUMNS = ("video", "start", "end", "name", "identity", "crop")
TIME = re.compile(r"(\d+:){0,2}\d+(\.\d*)?")
HDTF = re.compile(r"(RD|WDA|WRA)_(\w+?)(?:_\d{3})?")  # WRA_AdamKinzinger2_000.mp4
VOXCELEB_MEAD = re.compile(r"(?:.*/)?(?:(id\d{5})/(?:[^/]+/)?[^/]+|([MW]\d{3})/video/.+)")  # id10001/1zcIwhmdeo4/1.mp4
LRS = ("main", "pretrain", "trainval", "test")  # main/5535415699068794046/00001.mp4


class ClipSource(NamedTuple):
    """The part of a video that becomes a clip: seconds `start` to `end`, to the video's end if `end` is None."""

    name: str
    video: Path
    start: float = 0.0
    end: float | None = None
    identity: str = ""
    crop: Crop | None = None


def find_sources(paths: Iterable[Path], identity: IdentityRule = "auto") -> list[ClipSource]:
    """Find the clips of lists (.csv), videos, and folders that are searched for videos, sorted by name.

    A video that is reached twice counts once.

    Raises:
        UserError: a path does not exist, nothing is found, a list is wrong, or two clips have one name.
    """
    listed: list[ClipSource] = []
    videos: dict[str, ClipSource] = {}
    for path in map(Path.absolute, paths):
        if path.suffix.lower() == ".csv" and path.is_file():
            listed += read_clip_list(path, identity)
        else:
            below = path if path.is_dir() else path.parent
            for video in _search(path):
                name, person = clip_name(video, below), identity_of(video, below, identity)
                videos.setdefault(os.path.realpath(video), ClipSource(name, video, identity=person))
    found = [*listed, *videos.values()]
    if not found:
        raise UserError(f"no videos ({' '.join(VIDEO_SUFFIXES)}) in the given folders")
    known: dict[str, ClipSource] = {}
    for source in found:
        if not source.name or source.name.startswith(".") or "/" in source.name or not source.name.isprintable():
            raise UserError(f"{source.video}: {source.name!r} cannot be a folder's name; use letters, digits, - and _")
        if (other := known.setdefault(source.name, source)) is not source:
            raise UserError(
                f"{other.video} and {source.video} would both be clip {source.name!r}: give the folder above both, or "
                "rename one of them"
            )
    return sorted(found)


def find_videos(paths: Iterable[Path]) -> dict[str, Path]:
    """Find videos by name, sorted, as `find_sources` does."""
    return {source.name: source.video for source in find_sources(paths)}


def _search(path: Path) -> list[Path]:
    """Find the videos of a folder, without hidden ones, short paths first; links to folders are followed."""
    if path.is_dir():
        names = sorted(glob.glob("**", root_dir=path, recursive=True))
        files = map(path.joinpath, sorted(names, key=len))
        return [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()]
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return [path]


def clip_name(video: Path, below: Path) -> str:
    """Name the clip of a whole video by its path below a folder: sub/anna.mp4 is sub_anna."""
    return "_".join([*_folders(video, below), video.stem])


def _folders(video: Path, below: Path) -> tuple[str, ...]:
    return video.relative_to(below).parent.parts if video.is_relative_to(below) else ()


def identity_of(video: Path, below: Path, rule: IdentityRule = "auto") -> str:
    """Tell who is in a video that was found below a folder; see `prepare`."""
    if rule == "folder":
        return next(iter(_folders(video, below)), video.parent.name)
    if rule == "auto":
        if found := HDTF.fullmatch(video.stem):
            return person_of(found[1], found[2])
        if found := VOXCELEB_MEAD.fullmatch(video.as_posix()):
            return found[1] or found[2]
        if video.parent.parent.name in LRS and video.stem.isdecimal() and video.parent != below:
            return video.parent.name
    return clip_name(video, below)


def person_of(source: str, video: str) -> str:
    """Tell whom a video of HDTF's RD, WDA or WRA shows: AdamKinzinger0 to 2 are one person; RD's Radio1, … are not."""
    name = video if source == "RD" else video.rstrip("0123456789") or video
    return "JamesClyburn" if name == "WhipJimClyburn" else name


def read_clip_list(path: Path, identity: IdentityRule = "auto") -> list[ClipSource]:
    """Read a list of clips; whether the videos exist is not checked.

    Raises:
        UserError: unreadable, unknown columns, or a row that is no clip; names the line.
    """
    try:
        rows = read_csv(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    sources = []
    for line, row in enumerate(rows, 2):
        try:
            sources.append(_parse_row(path.absolute().parent, row, identity))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {line}: {error}") from error
    return sources


def _parse_row(folder: Path, row: dict[str, str], rule: IdentityRule) -> ClipSource:
    if not set(row) <= set(COLUMNS) or not row.get("video"):
        raise ValueError(f"{row} is no clip; expected a column video and any of {', '.join(COLUMNS[1:])}")
    video, start, end, name, identity, crop = (row.get(column, "").strip() for column in COLUMNS)
    path, begin, until = folder / video, seconds_of(start or "0"), seconds_of(end) if end else None
    if until is not None and until <= begin:
        raise ValueError(f"video {video!r} from {start!r} to {end!r} is no clip")
    name = name or clip_name(path, folder) + (f"_{round(1000 * begin):08d}" if start or end else "")
    identity = identity or identity_of(path, folder, rule)
    return ClipSource(name, path, begin, until, identity, Crop(*map(int, crop.split())) if crop else None)


def seconds_of(time: str) -> float:
    """Convert 12.5, 01:35 or 1:02:03.5 to seconds. Raises ValueError for anything else."""
    if not TIME.fullmatch(time):
        raise ValueError(f"{time!r} is no time; expected seconds or a clock such as 1:02:03.5")
    return sum(float(part) * 60**place for place, part in enumerate(reversed(time.split(":"))))


def write_clip_list(path: Path, sources: Iterable[ClipSource]) -> None:
    """Write a list of clips; videos below its folder become relative."""
    folder, rows = path.absolute().parent, []
    for name, video, start, end, identity, crop in sources:
        shown = video.relative_to(folder) if video.is_relative_to(folder) else video
        rows.append((shown, start or "", end or "", name, identity, " ".join(map(str, crop or ()))))
    write_csv(path, COLUMNS, rows)


def find_scenes(source: ClipSource) -> list[ClipSource]:
    """Split a video at its hard cuts into NAME_s000, NAME_s001, …, at times of the frames that clips show."""
    if source.start or source.end:
        return [source]
    from scenedetect import AdaptiveDetector, FrameTimecode

    detector, cuts = AdaptiveDetector(min_scene_len=0), [0]
    for number, frame in enumerate(read_frames(source.video, FPS)):
        step = max(1, max(frame.shape) // 256)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])
        cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(number, fps=float(FPS)), small)]
    starts = [cut / FPS for cut in cuts]
    spans = enumerate(zip(starts, [*starts[1:], None], strict=True))
    return [source._replace(name=f"{source.name}_s{k:03d}", start=start, end=end) for k, (start, end) in spans]
