"""The pictures of a clip in a dataset's report: a contact sheet to look at, and a small one to find it by."""

import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.overlay import write_overlay

THUMB = 96  # pixels


def sheet_path(root: Path, name: str) -> Path:
    return root / "report" / f"{name}.jpg"


def thumb_path(root: Path, name: str) -> Path:
    return root / "report" / "thumbs" / f"{name}.jpg"


def has_pictures(clip: Clip) -> bool:
    return sheet_path(clip.root, clip.name).exists() and thumb_path(clip.root, clip.name).exists()


def write_pictures(clip: Clip) -> None:
    """ROOT/report/NAME.jpg, frames over time with landmarks and mask, and ROOT/report/thumbs/NAME.jpg."""
    _aside(sheet_path(clip.root, clip.name), lambda path: write_overlay(clip, path))
    _aside(thumb_path(clip.root, clip.name), lambda path: _write_thumb(clip, path))


def _write_thumb(clip: Clip, path: Path) -> None:
    reader = clip.reader()
    try:
        picture = Image.fromarray(reader[clip.frames // 2])
    finally:
        reader.close()
    picture.resize((THUMB, THUMB), Image.Resampling.LANCZOS).save(path)


def _aside(path: Path, write: Callable[[Path], None]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.tmp.jpg")  # what it is, is told by the end of its name
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
