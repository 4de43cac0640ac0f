"""HDTF's files that somebody has already, linked to where downloads would lie."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from difftalk_pl.data.hdtf.files import (
    CLIPS,
    check_clip,
    check_original,
    clip_file,
    find_local,
    link,
    video_file,
)
from difftalk_pl.data.hdtf.ledger import Ledger, done
from difftalk_pl.data.hdtf.tables import HDTFClip, HDTFVideo
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

NAMED = 5  # unknown files that are named


class Taken(NamedTuple):
    """How many files were taken, were there already, were no use and are none of HDTF's."""

    originals: int = 0
    clips: int = 0
    known: int = 0
    useless: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        return (
            f"{self.originals} originals and {self.clips} ready-cut clips taken; {self.known} were there already, "
            f"{self.useless} are of no use, {self.unknown} are unknown"
        )


def take_local(folders: Path | Iterable[Path], videos: Sequence[HDTFVideo], folder: Path, bar: Progress) -> Taken:
    """Link HDTF's originals and clips to where they belong in `folder`; a file that is no use is named, and why.

    Raises:
        UserError: the folders hold no video of HDTF's.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    local = find_local(folders, videos)
    if not local.originals and not local.clips:
        raise UserError(
            f"{', '.join(map(str, folders))}: none of HDTF's videos or clips among {len(local.unknown)} files; their "
            "names should be like RD_Radio1_000.mp4, RD_Radio1.mp4 or Radio1.mp4"
        )
    counts = dict.fromkeys(Taken._fields, 0) | {"unknown": len(local.unknown)}
    ledger = Ledger(folder)
    task = bar.add_task("files", total=len(local.originals) + len(local.clips))
    for video in videos:
        meant: list[HDTFVideo | HDTFClip] = [video] if video.name in local.originals else []
        for one in [*meant, *(clip for clip in video.clips if clip.name in local.clips)]:
            source = local.originals[one.name] if isinstance(one, HDTFVideo) else local.clips[one.name]
            counts[_take(one, source, folder, ledger)] += 1
            bar.advance(task)
    if local.unknown:
        some = ", ".join(map(str, local.unknown[:NAMED])) + (", …" if len(local.unknown) > NAMED else "")
        log.warning("%d files are none of the chosen videos or clips and were left alone: %s", len(local.unknown), some)
    return Taken(**counts)


def _take(one: HDTFVideo | HDTFClip, source: Path, folder: Path, ledger: Ledger) -> str:
    """Under what this file counts."""
    try:
        if isinstance(one, HDTFVideo):
            return _take_original(one, source, folder, ledger)
        return _take_clip(one, source, folder)
    except FileExistsError:  # another process was faster
        return "known"
    except (UserError, OSError) as error:
        log.warning("not taken: %s", error if isinstance(error, UserError) else f"{source}: {error.strerror}")
        return "useless"


def _take_original(video: HDTFVideo, source: Path, folder: Path, ledger: Ledger) -> str:
    there = video_file(folder, video)
    if there is not None and ledger.read(video.name).state == "done":
        return "known"
    if there is not None and not there.samefile(source):
        log.warning("%s: %s is there already and was kept; remove it to take %s", video.name, there, source)
        return "known"
    claim = ledger.claims.take(video.name)
    if claim is None:
        log.warning("%s: not taken, another process is at it", source)
        return "known"
    with claim:
        shape = check_original(source, video)
        target = there or folder / f"{video.name}{source.suffix.lower()}"
        if there is None:
            link(source, target)
        ledger.write(done(video.name, target, shape, str(source.absolute())))
    return "originals"


def _take_clip(clip: HDTFClip, source: Path, folder: Path) -> str:
    if clip_file(folder, clip) is not None:
        return "known"
    check_clip(source, clip)
    link(source, folder / CLIPS / f"{clip.name}{source.suffix.lower()}")
    return "clips"
