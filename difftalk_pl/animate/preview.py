"""A contact sheet of a video's first frames: what was found, what is hidden, what was drawn."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from skimage.segmentation import find_boundaries

from difftalk_pl.callbacks.sheets import contact_sheet
from difftalk_pl.errors import UserError
from difftalk_pl.media.writer import TAG, refuse_place

if TYPE_CHECKING:
    from difftalk_pl.animate.talking_video import TalkingVideo

HEIGHT = 320  # pixels of a row
POINT, MASK, BOX = (0, 255, 0), (255, 64, 0), (64, 160, 255)


def preview_sheet(video: "TalkingVideo", path: Path, columns: int) -> None:
    """Frames with square, landmarks and mask drawn on them, the same finished, and both in the square alone."""
    rows: dict[str, list[np.ndarray]] = {"found": [], "result": [], "square": [], "generated": []}
    chosen = np.unique(np.linspace(0, len(video) - 1, columns).round().astype(int)).tolist()
    for number, (result, frame, square) in zip(chosen, video.pasted(chosen)):
        place = int(video.order[number])
        box = video.boxes[place]
        found = frame if square is None else outlined(frame, box, video.points[place], square.mask)
        part = _square(frame, box), _square(result, box)
        for name, picture in zip(rows, (found, result, *part)):
            rows[name].append(_high(picture))
    _save(path, np.concatenate(list(_of_one_width(rows)), axis=0))


def refuse_picture(path: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError for a file that is no PNG by its name, an input, or there and no preview of this project."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: the preview is a PNG; give a name that ends in .png")
    refuse_place(path, inputs)
    if not path.exists():
        return
    try:
        with Image.open(path) as picture:
            ours = TAG in picture.info
    except OSError:
        ours = False
    if not ours:
        raise UserError(f"{path}: is there already and was not made here; remove it or give another name")


def _save(path: Path, picture: np.ndarray) -> None:
    """Whole or not at all, and told apart from pictures of others."""
    about = PngInfo()
    about.add_text(TAG, "preview")
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(picture).save(aside, format="PNG", pnginfo=about)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def outlined(frame: np.ndarray, box: np.ndarray, points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the square's edges, the landmarks (68, 2) and the outline of the mask, (S, S) bool."""
    picture = Image.fromarray(frame.copy())
    draw = ImageDraw.Draw(picture)
    width = max(round(box[2] / 160), 1)
    draw.rectangle((box[0], box[1], box[0] + box[2] - 1, box[1] + box[2] - 1), outline=BOX, width=width)
    rows, columns = np.nonzero(find_boundaries(mask, mode="inner"))
    for x, y in (np.stack([columns, rows], axis=1) + 0.5) * box[2] / len(mask) + box[:2]:
        draw.circle((x, y), width, fill=MASK)
    for x, y in points:
        draw.circle((x, y), width, fill=POINT)
    return np.asarray(picture)


def _square(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    left, top, side = np.round(box).astype(int)
    return frame[max(top, 0) : top + side, max(left, 0) : left + side]


def _high(picture: np.ndarray) -> np.ndarray:
    size = (max(round(picture.shape[1] * HEIGHT / picture.shape[0]), 1), HEIGHT)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _of_one_width(rows: dict[str, list[np.ndarray]]) -> Iterator[np.ndarray]:
    """Sheets of the rows, padded with white."""
    width = {name: max(picture.shape[1] for picture in pictures) for name, pictures in rows.items()}
    sheets = [contact_sheet([(name, [_wide(one, width[name]) for one in pictures])]) for name, pictures in rows.items()]
    widest = max(sheet.shape[1] for sheet in sheets)
    yield from (_wide(sheet, widest) for sheet in sheets)


def _wide(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
