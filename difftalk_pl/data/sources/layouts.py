"""Finding the videos in folders of any layout, and what they become: clips with names and identities."""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from difftalk_pl.data.sources.clip_list import Piece, read_clip_list
from difftalk_pl.data.sources.naming import IdentityRule, NameRule, check_name, clip_name, identity_of, same_folder
from difftalk_pl.errors import UserError

__all__ = ["VIDEO_SUFFIXES", "IdentityRule", "NameRule", "find_pieces", "find_videos"]
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"),
}
LIST_SUFFIX = ".csv"
log = logging.getLogger(__name__)


def find_pieces(sources: Iterable[Path], identity: IdentityRule = "auto", names: NameRule = "auto") -> list[Piece]:
    """The clips of lists in their order, then those of videos by name.

    Files are taken as they are, folders are searched for the suffixes of videos, and a .csv is a list of clips. Hidden
    files and folders are left out; links are followed, and a file that is reached twice counts once.

    Args:
        identity, names: how videos are named and whom they show, as `naming` has it.

    Raises:
        UserError: a path does not exist, nothing is found, a list is wrong, or two clips would have one name.
    """
    sources = list(sources)
    lists = [path for path in sources if path.suffix.lower() == LIST_SUFFIX and path.is_file()]
    pieces = [piece for path in lists for piece in read_clip_list(path, identity, names)]
    if videos := [path for path in sources if path not in lists]:
        pieces += sorted(_named(_find(videos), identity, names))
    _refuse_shared_names(pieces)
    return pieces


def find_videos(sources: Iterable[Path]) -> dict[str, Path]:
    """Name without suffix -> file, sorted; what files and folders hold, as `find_pieces` finds it.

    Raises:
        UserError: a path does not exist, nothing is found, or two files would have one name.
    """
    videos: dict[str, Path] = {}
    for path, _ in _find(sources):
        if path.stem in videos:
            raise UserError(f"{videos[path.stem]} and {path} would both be clip {path.stem!r}; rename one of them")
        videos[path.stem] = path
    return dict(sorted(videos.items()))


def _named(found: Iterable[tuple[Path, Path]], identity: IdentityRule, names: NameRule) -> Iterator[Piece]:
    for video, below in found:
        name = clip_name(video, below, names)
        try:
            check_name(name)
        except ValueError as error:
            log.warning("refused, %s: %r", error, str(video))
        else:
            yield Piece(name, video, identity=identity_of(video, below, name, identity))


def _find(sources: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Videos, each with the folder that it was found below."""
    sources = list(sources)
    files: dict[str, tuple[Path, Path]] = {}  # by what they are, named by how they were given: links keep their names
    for source in sources:
        given = source.absolute()
        if source.is_dir():
            found = sorted(_search(given))
        elif source.exists():
            found = [(False, given, os.path.realpath(given))]
        else:
            raise UserError(f"{source}: no such file or folder")
        for _, path, real in found:
            if _is_text(path):
                files.setdefault(real, (path, given if path != given else given.parent))
            else:
                log.warning("refused, its name is not UTF-8, rename it: %r", str(path))
    if not files:
        raise UserError(f"{', '.join(map(str, sources))}: no videos ({' '.join(sorted(VIDEO_SUFFIXES))})")
    return list(files.values())


def _search(folder: Path) -> Iterator[tuple[bool, Path, str]]:
    """(is a link, path, real path) of all videos below a folder. Folders are entered once, links to them at the end, so
    that the way without links counts."""
    entered: set[str] = set()
    waiting = deque([folder])
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in entered:
            continue
        entered.add(real)
        for entry in _entries(here):
            path, is_link = here / entry.name, entry.is_symlink()
            if entry.is_dir():
                (waiting.appendleft if is_link else waiting.append)(path)
            elif path.suffix.lower() in VIDEO_SUFFIXES:
                if entry.is_file():
                    yield is_link, path, os.path.realpath(path) if is_link else os.path.join(real, entry.name)
                elif is_link:
                    log.warning("left out, a link to a file that is not there: %s", path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        log.warning("left out, this folder cannot be searched (%s): %s", error.strerror, folder)
        return []


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_shared_names(pieces: Iterable[Piece]) -> None:
    seen: dict[str, Piece] = {}
    for piece in pieces:
        other = seen.setdefault(same_folder(piece.name), piece)
        if other is not piece:
            names = f"clip {piece.name!r}" if other.name == piece.name else f"clips {other.name!r} and {piece.name!r}"
            raise UserError(
                f"{other.video} and {piece.video} would both be {names}: give --names path with the folder above both, "
                "or rename one of them"
            )
