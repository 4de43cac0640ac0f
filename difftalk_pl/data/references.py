"""Which frame shows a target's person: one policy for training, evaluation and inference."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import crop_square, cut_frame
from difftalk_pl.faces.track import follow_face

SOURCES = ("each", "random", "widest")
PROGRESSIVE = "progressive"
UPPER_LIP, LOWER_LIP = (61, 62, 63), (67, 66, 65)  # inner contours, facing points
EYES = (36, 45)  # outer corners


@dataclass(frozen=True)
class ReferencePolicy:
    """The setting `[progressive:]SOURCE`.

    Args:
        source: each (a frame of its own for every target, as in training), random (one for the whole clip, by seed),
            widest (the one with the widest open mouth), or the file of a picture.
        progressive: only the first frame takes its reference from the source, every other one the frame generated
            before it. Paper, table 2.
    """

    source: str = "each"
    progressive: bool = False

    @classmethod
    def parse(cls, text: str) -> "ReferencePolicy":
        """Read the setting. Raises UserError if it is neither a source nor a file."""
        first, colon, rest = text.partition(":")
        progressive = first == PROGRESSIVE
        source = rest if progressive and colon else "random" if progressive else text
        if source not in SOURCES and not Path(source).is_file():
            expected = f"{', '.join(SOURCES)} or the file of a picture, alone or after '{PROGRESSIVE}:'"
            raise UserError(f"reference {text!r}: expected {expected}")
        return cls(source, progressive)

    def picture(self, size: int) -> np.ndarray | None:
        """Read the face of the source's picture, (size, size, 3) uint8; None if frames of the clip are the source."""
        return None if self.source in SOURCES else read_face(Path(self.source), size)


@dataclass(frozen=True)
class ReferenceRule:
    """Which frames may show a target's person: paper, section 3.2, "at least 60 frames away".

    Args:
        min_gap: frames.
        lenient: for inference on short videos: a frame without such a partner gets the one furthest away.
        source: how one is chosen among those that may.
    """

    min_gap: int = 60
    lenient: bool = False
    source: str = "each"

    def __post_init__(self) -> None:
        if self.min_gap < (0 if self.lenient else 1):
            raise UserError(f"min_reference_gap {self.min_gap}: expected 1 or more, or a frame is its own reference")

    def targets(self, frames: int) -> int:
        """Return how many frames of a clip have a partner far enough away."""
        return frames if self.lenient or frames >= 2 * self.min_gap else max(2 * (frames - self.min_gap), 0)

    def target(self, frames: int, number: int) -> int:
        """Return the frame that is target `number`: short clips have none in their middle."""
        missing = max(2 * self.min_gap - frames, 0)
        return number if self.lenient or number < frames - self.min_gap else number + missing

    def choose(self, frame: int, frames: int, random: np.random.Generator, scores: np.ndarray | None = None) -> int:
        """Return one of the frames at least `min_gap` away: the one of highest score, or a uniform draw without scores.

        Where there is none, the furthest frame, which happens only to a lenient rule.
        """
        before, after = max(frame - self.min_gap + 1, 0), max(frames - frame - self.min_gap, 0)
        if before + after == 0:
            return 0 if frame >= frames / 2 else frames - 1
        if scores is not None:
            allowed = np.r_[np.arange(before), np.arange(frames - after, frames)]
            return int(allowed[np.argmax(scores[allowed])])
        number = int(random.integers(before + after))
        return number if number < before else frame + self.min_gap + number - before

    def scores(self, landmarks: np.ndarray, seed: int, name: str) -> np.ndarray | None:
        """Rank the frames of the clip `name` as its one reference, (T, 68, 2) -> (T,); None if there is not one.

        The width of a mouth is the distance of the inner lips over that of the eyes.
        """
        if self.source == "widest":
            lips = np.linalg.norm(landmarks[:, list(UPPER_LIP)] - landmarks[:, list(LOWER_LIP)], axis=-1).mean(axis=1)
            return lips / np.linalg.norm(landmarks[:, EYES[0]] - landmarks[:, EYES[1]], axis=-1)
        if self.source == "random":
            return np.random.default_rng([seed, zlib.crc32(name.encode())]).random(len(landmarks))
        return None


def read_face(path: Path, size: int) -> np.ndarray:
    """Cut the largest face of a picture as prepare cuts a clip, (size, size, 3) uint8. Raises UserError if none is."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: no readable picture ({error}); give a PNG or JPEG of the person's face") from error
    landmarks = follow_face([pixels]).landmarks
    if np.isnan(landmarks).any():
        raise UserError(f"{path}: no face found")
    return cut_frame(pixels, crop_square(landmarks, pixels.shape[1], pixels.shape[0]), size)
