"""What a video's clip is called and who is taken to be in it, by nothing but its path.

Both are functions of one path, the folder that was searched, and a rule: a video that comes later changes no name.
"""

import re
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Literal

from difftalk_pl.data.sources.people import person_of

IdentityRule = Literal["auto", "name", "folder", "top", "prefix"]
NameRule = Literal["auto", "stem", "path"]

LONGEST = 220  # bytes of a name: files around it add a suffix and stay below 255
MARK = 8  # digits that tell shortened names apart
HDTF = re.compile(r"(RD|WDA|WRA)_(\w+?)(?:_\d{3})?")  # WRA_AdamKinzinger2_000.mp4
VOXCELEB = re.compile(r"(?:.*/)?(id\d{5})/(?:[^/]+/)?[^/]+")  # id10001/1zcIwhmdeo4/00001.mp4
MEAD = re.compile(r"(?:.*/)?([MW]\d{3})/video/.+")  # M003/video/front/neutral/level_1/001.mp4
LRS = ("main", "pretrain", "trainval", "test")  # main/5535415699068794046/00001.mp4
PREFIX = re.compile(r"(.+?)(?:[_-]\d+)+")  # M2Ohb0FAaJU_1.mp4


def clip_name(video: Path, below: Path, rule: NameRule = "auto") -> str:
    """The name of the clip that a whole video becomes; shortened to LONGEST bytes, with a mark of the whole.

    Args:
        video: below the folder `below`, which was searched or holds the list.
        rule: stem: the file's name. path: the folders below `below`, too, joined by `_`. auto: the path where the
            file's name is only a number, else the stem.
    """
    by_path = rule == "path" or (rule == "auto" and video.stem.isdecimal())
    return _shortened("_".join([*_folders(video, below), video.stem]) if by_path else video.stem)


def identity_of(video: Path, below: Path, name: str, rule: IdentityRule = "auto") -> str:
    """Who is in a video.

    Args:
        name: of its clip.
        rule: name: the clip is its own person. folder: the folder that the video lies in. top: the first folder below
            `below`, or itself where there is none. prefix: the file's name without the numbers at its end. auto: what
            the paths of known datasets say, else the name.
    """
    if rule == "folder":
        return video.parent.name or name
    if rule == "top":
        return next(iter(_folders(video, below)), below.name) or name
    if rule == "prefix":
        found = PREFIX.fullmatch(video.stem)
        return found[1] if found else name
    return (_known_person(video, below) if rule == "auto" else None) or name


def part_name(name: str, mark: str) -> str:
    """The name of a part of a video: that of the whole, and a mark."""
    return _shortened(name, LONGEST - len(mark)) + mark


def check_name(name: str) -> None:
    """Raises ValueError for what cannot be the name of a folder and a line of a list."""
    if name in ("", ".", "..") or "/" in name or name.startswith("."):
        raise ValueError(f"the name {name!r} cannot be a folder's; take letters, digits, - and _")
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs") for letter in name):
        raise ValueError(f"the name {name!r} holds a control character or is not UTF-8; take letters, digits, - and _")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"the name {name[:20]}… is longer than {LONGEST} bytes; take a shorter one")


def same_folder(name: str) -> str:
    """Equal for names that are one folder on a disk that takes A for a."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _known_person(video: Path, below: Path) -> str | None:
    """By the names and layouts of HDTF, VoxCeleb, MEAD and LRS; None for other paths."""
    if found := HDTF.fullmatch(video.stem):
        return person_of(found[1], found[2])
    path = video.as_posix()
    if found := VOXCELEB.fullmatch(path) or MEAD.fullmatch(path):
        return found[1]
    is_numbered = video.stem.isdecimal() and video.parent != below
    if is_numbered and (video.parent.parent.name in LRS or video.with_suffix(".txt").exists()):
        return video.parent.name
    return None


def _folders(video: Path, below: Path) -> tuple[str, ...]:
    parts = video.relative_to(below).parent.parts if video.is_relative_to(below) else ()
    return () if ".." in parts else parts


def _shortened(name: str, longest: int = LONGEST) -> str:
    whole = name.encode(errors="surrogateescape")
    if len(whole) <= longest:
        return name
    return f"{whole[: longest - MARK - 1].decode(errors='ignore')}_{sha256(whole).hexdigest()[:MARK]}"
