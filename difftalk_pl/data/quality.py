"""How good prepared clips are: measures of a clip, ROOT/quality.csv with those of all clips, and a filter by them."""

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import laplace

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, read_dataset
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import face_size
from difftalk_pl.faces.pose import yaw

log = logging.getLogger(__name__)

TABLE = "quality.csv"
SAMPLES = 12  # frames in which sharpness is measured, spread evenly
SHARP_FACE = 96  # pixels from ear to ear at which sharpness is measured, so that faces of all sizes compare
QUIET_BELOW_LOUD, QUIET = 35.0, -60.0  # dB under the loud level (95th percentile), or under full scale: no speech
MEASURES = {  # the columns of numbers
    "seconds": "length, s",
    "face_size": "ear to ear, pixels of the source (of the clip's frames where it was drawn)",
    "yaw": "absolute angle by which the head is turned aside, degrees, median over frames",
    "sharpness": f"variance of the Laplacian of the face's luma (0-255), scaled to {SHARP_FACE} pixels from ear to ear",
    "level": "RMS of the audio, dB of full scale; empty for silence",
    "speech": "share of frames that are not quiet",
    "gaps": "share of frames without a detected face, filled in by interpolation; empty where nothing was detected",
    "faces": "faces seen in the source; empty where nothing was detected",
}


def keep_clips(root: Path, clips: Sequence[Clip], expression: str | None) -> list[Clip]:
    """Return the clips that fulfil an expression over the columns of quality.csv; all without an expression.

    Args:
        expression: as in pandas' `query`: "abs(yaw) < 35 and sharpness > 20". A comparison with an empty value fails.

    Raises:
        UserError: clips are not measured, none is left, the expression has an unknown column or is not a condition.
    """
    if expression is None:
        return list(clips)
    table = read_quality(root).set_index("name")
    if missing := [clip.name for clip in clips if clip.name not in table.index]:
        raise UserError(
            f"{root / TABLE}: {len(missing)} clips are not measured ({missing[0]}, …); run report --data {root}"
        )
    try:
        kept = table.eval(expression, local_dict={}, global_dict={})
    except (SyntaxError, ValueError, TypeError, AttributeError, LookupError, NameError, NotImplementedError) as error:
        raise UserError(f"data.keep {expression!r}: {error}; the columns are {', '.join(MEASURES)}") from error
    if not isinstance(kept, pd.Series) or not pd.api.types.is_bool_dtype(kept):
        raise UserError(f"data.keep {expression!r}: expected a condition such as 'yaw < 35'")
    chosen = [clip for clip in clips if kept[clip.name]]
    hours = sum(clip.frames for clip in chosen) / FPS / 3600
    log.info("keep %s: %d of %d clips (%.2f h)", expression, len(chosen), len(clips), hours)
    if clips and not chosen:
        raise UserError(f"data.keep {expression!r}: none of {len(clips)} clips fulfils it; relax it")
    return chosen


def read_quality(root: Path) -> pd.DataFrame:
    """Read quality.csv: name, the MEASURES, reason (why a clip could not be measured, or empty) and stamp."""
    path, texts = root / TABLE, dict.fromkeys(("name", "reason", "stamp"), str)
    columns = ["name", *MEASURES, "reason", "stamp"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        empty = {column: [""] for column in MEASURES}
        return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=empty)[columns]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it and run report --data {root}") from error


def measure(clip: Clip) -> dict[str, float | None]:
    """Return the MEASURES of a clip, None where one is unknown.

    Raises:
        UserError, OSError, ValueError: a file is missing, damaged, or disagrees with the others.
    """
    info, points = clip.info(), np.array(clip.landmarks)
    seen, level_and_speech = info.get("faces", {}), loudness(clip.audio())
    return {
        "seconds": clip.frames / FPS,
        "face_size": face_size(points) * (info["crop"]["side"] if "crop" in info else read_dataset(clip.root).size),
        "yaw": float(np.median(np.abs(yaw(points)))),
        "sharpness": _clip_sharpness(clip, points),
        **dict(zip(("level", "speech"), level_and_speech, strict=True)),
        "gaps": seen["interpolated"] / clip.frames if "interpolated" in seen else None,
        "faces": seen.get("seen"),
    }


def _clip_sharpness(clip: Clip, points: np.ndarray) -> float:
    numbers = np.unique(np.linspace(0, clip.frames - 1, SAMPLES).round().astype(int)).tolist()
    with closing(clip.reader()) as reader:
        return float(np.median([sharpness(reader[number], points[number]) for number in numbers]))


def sharpness(frame: np.ndarray, points: np.ndarray) -> float:
    """Return the variance of the Laplacian in the box of the landmarks, at SHARP_FACE pixels from ear to ear.

    Args:
        frame: (S, S, 3) uint8.
        points: (68, 2), fractions of the side.
    """
    side = len(frame)
    low, high = np.clip(points.min(axis=0) * side, 0, side - 1), np.clip(points.max(axis=0) * side, 1, side)
    width, height = np.maximum(np.round((high - low) * SHARP_FACE / max(face_size(points[None]) * side, 1)), 3)
    luma = Image.fromarray(frame).convert("L")
    face = luma.resize((int(width), int(height)), Image.Resampling.LANCZOS, box=(*low.tolist(), *high.tolist()))
    return float(laplace(np.asarray(face, np.float64)).var())


def loudness(samples: np.ndarray) -> tuple[float | None, float]:
    """Return the level in dB of full scale (a full sine has -3) and the share of frames that are not quiet.

    Args:
        samples: (T * 640,) int16.
    """
    power = np.square(samples.reshape(-1, SAMPLES_PER_FRAME) / 2**15).mean(axis=1)
    if not power.any():
        return None, 0.0
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    quiet = decibels < max(QUIET, float(np.percentile(decibels, 95)) - QUIET_BELOW_LOUD)
    return float(10 * np.log10(power.mean())), float(1 - quiet.mean())
