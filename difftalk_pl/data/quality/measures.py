"""How good a prepared clip is, measured from its own files: face, sharpness, sound, gaps, motion."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import laplace

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, read_dataset
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.faces.framing import face_size
from difftalk_pl.faces.head_pose import yaw

VERSION = 1  # of what is measured: rows of another one are measured again
SAMPLES = 12  # frames that sharpness is measured in, spread evenly
SHARP_FACE = 96  # pixels from ear to ear at which sharpness is measured: some clips have more, some have fewer
STILL = (*range(27, 36), *range(36, 48))  # nose and eyes: they move with the head alone
FULL_SCALE = 32768.0
CLIPPED = 32700  # a sample from here on, of 32767, counts as clipped
QUIET_BELOW_LOUD, QUIET = 35.0, -60.0  # dB under the loud level (95th percentile), or under full scale: nobody speaks
FILES = ("clip.json", "video.mp4", "landmarks.npy", "audio.wav")  # what is measured


class Quality(NamedTuple):
    """A line of quality.csv. None (an empty cell) where something is not known."""

    name: str
    seconds: float | None = None
    face_size: float | None = None
    yaw: float | None = None
    yaw_p95: float | None = None
    sharpness: float | None = None
    motion: float | None = None
    level: float | None = None
    speech: float | None = None
    clipping: float | None = None
    gaps: float | None = None
    longest_gap: float | None = None
    faces: float | None = None
    sync_offset: float | None = None
    sync_confidence: float | None = None
    sync_by: str = ""
    reason: str = ""
    stamp: str = ""


MEASURES = {  # the columns that are numbers, and what each is
    "seconds": "length, s",
    "face_size": "ear to ear, pixels of the source (of the clip's frames where it was drawn)",
    "yaw": "head turned aside, degrees, median over frames",
    "yaw_p95": "the same, 95th percentile",
    "sharpness": f"variance of the Laplacian of the face's luma (0-255), scaled to {SHARP_FACE} pixels from ear to ear",
    "motion": "way of nose and eyes, face sizes a second",
    "level": "RMS of the sound, dB of full scale; none for silence",
    "speech": "share of frames that are not quiet",
    "clipping": "share of samples at full scale",
    "gaps": "share of frames without a detected face, filled in by interpolation; none where nothing was detected",
    "longest_gap": "the longest of these gaps, frames; none where it was not recorded",
    "faces": "faces seen in the source; none where nothing was detected",
    "sync_offset": "frames by which the sound has to be moved, by SyncNet; none until it is measured",
    "sync_confidence": "how sure SyncNet is; none until it is measured",
}


def measure(clip: Clip) -> Quality:
    """Measure a clip. Its sync columns stay None.

    Raises:
        UserError, OSError, ValueError: a file is missing, damaged, or disagrees with the others.
    """
    info, points = clip.info(), np.array(clip.landmarks)
    if not np.isfinite(points).all():
        raise ValueError("landmarks.npy is not finite everywhere")
    turned, face = np.abs(yaw(points)), face_size(points)
    level, speech, clipping = loudness(clip.audio())
    seen = info.get("faces", {})
    return Quality(
        clip.name,
        seconds=clip.frames / FPS,
        face_size=face * source_side(info, clip),
        yaw=float(np.median(turned)),
        yaw_p95=float(np.percentile(turned, 95)),
        sharpness=clip_sharpness(clip, points),
        motion=head_motion(points),
        level=level,
        speech=speech,
        clipping=clipping,
        gaps=seen["interpolated"] / clip.frames if "interpolated" in seen else None,
        longest_gap=seen.get("longest_gap"),
        faces=seen.get("seen"),
        stamp=stamp(clip),
    )


def stamp(clip: Clip) -> str:
    """Sizes and times of change of the files that are measured: another one, and the clip is measured again."""
    digest = hashlib.sha256(f"{VERSION} {clip.frames}".encode())
    for name in FILES:
        try:
            there = (clip.folder / name).stat()
            digest.update(f" {name} {there.st_size} {there.st_mtime_ns}".encode())
        except OSError:
            digest.update(f" {name} is missing".encode())
    return digest.hexdigest()[:16]


def source_side(info: dict[str, Any], clip: Clip) -> float:
    """Side of the clip's square in pixels of what it was made from; a released layout may have several: the least."""
    if "crop" in info:
        return info["crop"]["side"]
    source = info.get("source")
    sides = source.get("sides") if isinstance(source, dict) else None
    return min(sides) if sides else read_dataset(clip.root).size


def clip_sharpness(clip: Clip, points: np.ndarray) -> float:
    """The median over frames that are spread over the clip."""
    reader = clip.reader()
    try:
        numbers = np.unique(np.linspace(0, clip.frames - 1, SAMPLES).round().astype(int)).tolist()
        return float(np.median([sharpness(reader[number], points[number]) for number in numbers]))
    finally:
        reader.close()


def sharpness(frame: np.ndarray, points: np.ndarray) -> float:
    """Variance of the Laplacian in the box of the landmarks, at SHARP_FACE pixels from ear to ear, so that a face
    compares with one of another size. One with fewer pixels is enlarged, and as soft as it looks.

    Args:
        frame: (S, S, 3) uint8.
        points: (68, 2), fractions of the side.
    """
    height, width = frame.shape[:2]
    pixels = points * (width, height)
    low, high = np.clip(pixels.min(axis=0), 0, (width - 1, height - 1)), np.clip(pixels.max(axis=0), 1, (width, height))
    scale = SHARP_FACE / max(face_size(pixels[None]), 1)
    size = [max(round(float(side) * scale), 3) for side in high - low]
    luma = Image.fromarray(frame).convert("L")
    face = luma.resize((size[0], size[1]), Image.Resampling.LANCZOS, box=(*low.tolist(), *high.tolist()))
    return float(laplace(np.asarray(face, np.float64)).var())


def head_motion(points: np.ndarray) -> float:
    """How far the head goes, in face sizes a second. points: (T, 68, 2), any unit."""
    middle = points[:, STILL].mean(axis=1, dtype=np.float64)
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    return float(steps.mean() * FPS / face_size(points)) if len(steps) else 0.0


def loudness(samples: np.ndarray) -> tuple[float | None, float, float]:
    """Level in dB of full scale (a full sine has -3), share of frames that are not quiet, share of clipped samples.

    Args:
        samples: (T * 640,) int16.
    """
    power = np.square(samples.reshape(-1, SAMPLES_PER_FRAME) / FULL_SCALE).mean(axis=1)
    if not power.any():
        return None, 0.0, 0.0
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    quiet = decibels < max(QUIET, float(np.percentile(decibels, 95)) - QUIET_BELOW_LOUD)
    clipped = (samples >= CLIPPED) | (samples <= -CLIPPED)
    return float(10 * np.log10(power.mean())), float(1 - quiet.mean()), float(clipped.mean())
