"""A contact sheet of a video's first frames: what was found, what is hidden, what was drawn."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from difftalk_pl.callbacks.sheets import contact_sheet, save_picture

if TYPE_CHECKING:
    from difftalk_pl.talking_video import TalkingVideo

HEIGHT = 320  # pixels of a row
POINT, MASK, BOX = (0, 255, 0), (255, 64, 0), (64, 160, 255)


def preview_sheet(video: "TalkingVideo", path: Path, columns: int) -> Path:
    """Frames with square, landmarks and mask drawn on them, the same finished, and both in the square alone."""
    rows: dict[str, list[np.ndarray]] = {"found": [], "result": [], "square": [], "generated": []}
    chosen = set(np.linspace(0, len(video) - 1, columns).round().astype(int).tolist())
    for number, (result, frame, square) in enumerate(video.pasted()):
        if number not in chosen:
            continue
        place = int(video.order[number])
        box = video.boxes[place]
        found = frame if square is None else outlined(frame, box, video.points[place], square.mask)
        part = _square(frame, box), _square(result, box)
        for name, picture in zip(rows, (found, result, *part)):
            rows[name].append(_high(picture))
    return save_picture(path, np.concatenate(list(_of_one_width(rows)), axis=0))


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
