"""HDTF's videos and clips among files: what they are called here, what others call them, and whether they are whole.

FOLDER/NAME.mp4 (or any container) is a video as published, FOLDER/clips/RD_Radio1_000.mp4 a clip that came ready cut.
"""

import errno
import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from difftalk_pl.data.hdtf.tables import HDTFClip, HDTFVideo
from difftalk_pl.data.sources.layouts import VIDEO_SUFFIXES
from difftalk_pl.errors import UserError
from difftalk_pl.media.containers import MediaError, audio_stream, clock_zero, declared_end, open_media, video_stream

log = logging.getLogger(__name__)

CLIPS = "clips"  # below the folder of the videos
TAIL = 5.0  # seconds at the end of a file that are read to see that they are there
PACKET = 0.02  # seconds in the shortest packets that are written here
CUT_OFF = 0.5  # seconds that may be missing of what the headers say
SLACK = 1.5  # seconds between a file and the tables, which count whole ones
ADDRESS = re.compile(r"(?:v=|youtu\.be/|shorts/|embed/)([\w-]{11})(?![\w-])")
DOWNLOADED = re.compile(r"(?:^|.*\[|.*-)([\w-]{11})\]?")  # ID, Title [ID] and Title-ID, as downloaders name files


class Unfit(MediaError):
    """A whole file, but not the one that the tables mean."""


class Shape(NamedTuple):
    """What a whole file is: the end of its picture in seconds, and pixels as coded."""

    seconds: float
    width: int
    height: int


class LocalFiles(NamedTuple):
    """HDTF's files in somebody's folders.

    Args:
        originals: by the video's name.
        clips: ready cut ones, by the clip's name.
        unknown: videos that are none of HDTF's, or of which there are two for the same thing.
    """

    originals: dict[str, Path]
    clips: dict[str, Path]
    unknown: list[Path]


def video_file(folder: Path, video: HDTFVideo | str) -> Path | None:
    """A video in its place: FOLDER/NAME with the suffix of any container. Raises UserError where there are two."""
    return _one(folder, video if isinstance(video, str) else video.name)


def clip_file(folder: Path, clip: HDTFClip | str) -> Path | None:
    """A clip that came ready cut, in its place. Raises UserError where there are two."""
    return _one(folder / CLIPS, clip if isinstance(clip, str) else clip.name)


def find_local(folders: Path | Iterable[Path], videos: Sequence[HDTFVideo]) -> LocalFiles:
    """HDTF's originals and clips among the videos of folders, by their names; upper and lower case are the same.

    RD_Radio1, Radio1, and the address's ID alone or at the end (`Title [ID]`) are originals; RD_Radio1_000, RD_Radio1_0
    and Radio1_0 are clips. Of two different files for one of them neither is taken; both are named. Hidden files and
    folders are left out, and a file that is reached twice counts once.

    Raises:
        UserError: a folder is not there.
    """
    known = _names(videos)
    found: dict[HDTFVideo | HDTFClip, list[Path]] = defaultdict(list)
    unknown = []
    for path in _media_files([folders] if isinstance(folders, Path) else folders):
        meant = known.get(path.stem.lower()) or _by_address(path.stem, known)
        if not meant:
            unknown.append(path)
        for one in meant:
            found[one].append(path)
    for one, paths in found.items():
        if len(paths) > 1:
            log.warning(
                "%s: %d files stand for it, none is taken: %s", one.name, len(paths), ", ".join(map(str, paths))
            )
            unknown += paths
    alone = {one: paths[0] for one, paths in found.items() if len(paths) == 1}
    originals = {one.name: path for one, path in alone.items() if isinstance(one, HDTFVideo)}
    clips = {one.name: path for one, path in alone.items() if isinstance(one, HDTFClip)}
    return LocalFiles(originals, clips, list(dict.fromkeys(unknown)))


def check_original(path: Path, video: HDTFVideo) -> Shape:
    """Whether a file is whole, has picture and sound, and reaches to the end of the video's last clip.

    Raises:
        Unfit: whole, but too short.
        MediaError: anything else.
    """
    shape, sound = _look(path)
    needed = max(clip.stop for clip in video.clips)
    for track, end in {"picture": shape.seconds, "sound": sound}.items():
        if end < needed - SLACK:
            raise Unfit(
                f"{path}: its {track} ends at {end:.1f} s and its last clip at {needed:g} s: another video, one "
                f"that was shortened, or a clip (those are called {video.clips[0].name})"
            )
    return shape


def check_clip(path: Path, clip: HDTFClip) -> Shape:
    """Whether a ready-cut file is whole, has picture and sound, and is as long as the tables say. Raises as above."""
    shape, sound = _look(path)
    if abs(shape.seconds - clip.seconds) > SLACK or sound < shape.seconds - SLACK:
        raise Unfit(
            f"{path}: {shape.seconds:.1f} s of picture and {sound:.1f} s of sound; the tables say {clip.seconds:g} s"
        )
    return shape


def link(source: Path, target: Path) -> None:
    """The same file under another name, never moved: a hard link, else a symbolic one, else a copy.

    Raises:
        FileExistsError: there is a file of that name.
    """
    source = source.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and not target.exists():  # to a disk that is not there any more
        target.unlink()
    for make in (os.link, os.symlink):
        try:
            make(source, target)
            return
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def names_in(folder: Path) -> set[str]:
    """Of the videos that lie in a folder, without suffix; empty where there is none."""
    pairs = map(os.path.splitext, _listed(folder))
    return {stem for stem, suffix in pairs if suffix.lower() in VIDEO_SUFFIXES and not stem.startswith(".")}


def _one(folder: Path, name: str) -> Path | None:
    found = sorted(folder / entry for entry in _listed(folder) if _is_named(entry, name))
    if len(found) > 1:
        raise UserError(f"{name}: {' and '.join(map(str, found))} are there; keep one of them")
    return found[0] if found else None


def _listed(folder: Path) -> list[str]:
    """The names of its files; a link whose file is gone is none."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []


def _is_named(entry: str, name: str) -> bool:
    stem, suffix = os.path.splitext(entry)
    return stem == name and suffix.lower() in VIDEO_SUFFIXES


def _names(videos: Sequence[HDTFVideo]) -> dict[str, list[HDTFVideo | HDTFClip]]:
    """What each name means, in lower case; an ID of an address begins with `id=` and may mean several videos."""
    known: dict[str, list[HDTFVideo | HDTFClip]] = defaultdict(list)
    for video in videos:
        for name in (video.name, f"{video.source}_{video.name}"):
            known[name.lower()].append(video)
        if address := ADDRESS.search(video.url):
            known[f"id={address[1]}"].append(video)
        for clip in video.clips:
            for name in {clip.name, f"{video.source}_{video.name}_{clip.number}", f"{video.name}_{clip.number}"}:
                known[name.lower()].append(clip)
    return known


def _by_address(stem: str, known: dict[str, list[HDTFVideo | HDTFClip]]) -> list[HDTFVideo | HDTFClip]:
    found = DOWNLOADED.fullmatch(stem)
    return known.get(f"id={found[1]}", []) if found else []


def _media_files(folders: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the one that holds HDTF's videos or clips")
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if not hidden and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                status = path.stat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield path


def is_whole(path: Path) -> bool:
    """Whether picture and sound of a file that was written here reach to the ends that its headers tell."""
    try:
        shape, sound = _look(path)
        with open_media(path) as container:
            declared = [declared_end(container, find(container, path)) for find in (video_stream, audio_stream)]
    except MediaError:
        return False
    return all(
        end is None or here > end - PACKET / 2 for here, end in zip((shape.seconds, sound), declared, strict=True)
    )


def _look(path: Path) -> tuple[Shape, float]:
    """Of a whole file; and the end of its sound in seconds. Nothing is decoded and only the end is read."""
    with open_media(path) as container:
        video, audio = video_stream(container, path), audio_stream(container, path)
        zero, declared = clock_zero(container), (container.duration or 0) / av.time_base
        if declared > TAIL:
            container.seek(int((float(zero) + declared - TAIL) * av.time_base))
        ends = {video.index: 0.0, audio.index: 0.0}
        for packet in container.demux(video, audio):
            if packet.pts is not None and packet.time_base is not None and not packet.is_corrupt:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base - zero)
                ends[packet.stream.index] = max(ends[packet.stream.index], end)
        if (last := max(ends.values())) < declared - CUT_OFF:
            raise MediaError(f"{path}: breaks off at {last:.1f} s of {declared:.1f} s")
        context = video.codec_context
        return Shape(ends[video.index], context.width, context.height), ends[audio.index]
