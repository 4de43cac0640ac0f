"""How good a prepared clip is: its measures, and a contact sheet with landmarks and mask for looking."""

from contextlib import closing

import numpy as np
from einops import rearrange
from PIL import Image
from scipy.ndimage import laplace
from skimage.draw import disk
from skimage.segmentation import find_boundaries

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, verify
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.faces.crop import face_size
from difftalk_pl.faces.pose import yaw

COLUMNS, ROWS, CELL = 4, 3, 256  # frames across, frames down, pixels of each
POINT_COLOUR, MASK_COLOUR = (0, 255, 0), (255, 64, 0)
SHARP_FACE = 96  # pixels from ear to ear at which sharpness is measured, so that faces of all sizes compare
QUIET_BELOW_LOUD, QUIET = 35.0, -60.0  # dB under the loud level (95th percentile), or under full scale: no speech
MEASURES = {
    "seconds": "length, s",
    "face_size": "ear to ear, pixels of the source (of the clip's frames where it was drawn)",
    "yaw": "absolute angle by which the head is turned aside, degrees, median over frames",
    "sharpness": f"variance of the Laplacian of the face's luma (0-255), scaled to {SHARP_FACE} pixels from ear to ear",
    "level": "RMS of the audio, dB of full scale; empty for silence",
    "speech": "share of frames that are not quiet",
    "gaps": "share of frames without a detected face, filled in by interpolation; empty where nothing was detected",
    "faces": "faces seen in the source; empty where nothing was detected",
}


def measure(clip: Clip) -> dict[str, float | None]:
    """Verify a clip, draw its contact sheet, ROOT/report/NAME.jpg, and return its MEASURES, None where unknown.

    Raises:
        UserError, OSError, ValueError: a file is missing, damaged, or disagrees with the others.
    """
    verify(clip)
    info, points, sheet = clip.info(), np.array(clip.landmarks), clip.root / "report" / f"{clip.name}.jpg"
    numbers = np.linspace(0, clip.frames - 1, ROWS * COLUMNS).round().astype(int).tolist()
    with closing(clip.reader()) as reader:
        frames = [(reader[number], points[number]) for number in numbers]
    cells = np.stack([draw_overlay(frame, landmarks, MaskPolicy()) for frame, landmarks in frames])
    sheet.parent.mkdir(exist_ok=True)
    Image.fromarray(rearrange(cells, "(r c) h w k -> (r h) (c w) k", c=COLUMNS)).save(sheet)
    seen, (level, speech) = info.get("faces", {}), loudness(clip.audio())
    return {
        "seconds": clip.frames / FPS,
        "face_size": face_size(points) * (info["crop"]["side"] if "crop" in info else len(frames[0][0])),
        "yaw": float(np.median(np.abs(yaw(points)))),
        "sharpness": float(np.median([sharpness(frame, landmarks) for frame, landmarks in frames])),
        "level": level,
        "speech": speech,
        "gaps": seen["interpolated"] / clip.frames if "interpolated" in seen else None,
        "faces": seen.get("seen"),
    }


def draw_overlay(frame: np.ndarray, landmarks: np.ndarray, policy: MaskPolicy) -> np.ndarray:
    """(S, S, 3) uint8 and (68, 2) fractions -> (CELL, CELL, 3) uint8 with the points and the mask's outline."""
    image = np.array(Image.fromarray(frame).resize((CELL, CELL)))
    image[find_boundaries(policy(landmarks, CELL), mode="inner")] = MASK_COLOUR
    for x, y in landmarks * CELL - 0.5:
        image[disk((y, x), 1.5, shape=image.shape[:2])] = POINT_COLOUR
    return image


def sharpness(frame: np.ndarray, points: np.ndarray) -> float:
    """Return the variance of the Laplacian in the box of the landmarks, at SHARP_FACE pixels from ear to ear.

    frame: (S, S, 3) uint8; points: (68, 2), fractions of the side.
    """
    side = len(frame)
    low, high = np.clip(points.min(axis=0) * side, 0, side - 1), np.clip(points.max(axis=0) * side, 1, side)
    width, height = np.maximum(np.round((high - low) * SHARP_FACE / max(face_size(points[None]) * side, 1)), 3)
    luma = Image.fromarray(frame).convert("L")
    face = luma.resize((int(width), int(height)), Image.Resampling.LANCZOS, box=(*low.tolist(), *high.tolist()))
    return float(laplace(np.asarray(face, np.float64)).var())


def loudness(samples: np.ndarray) -> tuple[float | None, float]:
    """Return the level in dB of full scale (a full sine has -3) and the share of frames that are not quiet.

    samples: (T * 640,) int16.
    """
    power = np.square(samples.reshape(-1, SAMPLES_PER_FRAME) / 2**15).mean(axis=1)
    if not power.any():
        return None, 0.0
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    quiet = decibels < max(QUIET, float(np.percentile(decibels, 95)) - QUIET_BELOW_LOUD)
    return float(10 * np.log10(power.mean())), float(1 - quiet.mean())
