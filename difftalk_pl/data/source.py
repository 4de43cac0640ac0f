"""One source video -> one prepared clip."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from difftalk_pl.data.audio import FPS, RATE
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, ClipRow, versions, write_clip
from difftalk_pl.data.faces import track_faces
from difftalk_pl.data.features import SpeechModels, add_missing, open_features, sha256
from difftalk_pl.data.framing import MARGIN, Crop, check_face, crop_square, fill_gaps, smooth
from difftalk_pl.data.overlay import write_overlay
from difftalk_pl.data.pool import Report
from difftalk_pl.data.video import VideoInfo, fit_audio, probe, read_audio, read_frames
from difftalk_pl.errors import UserError

REPORT_EVERY = 25  # frames


@dataclass(frozen=True)
class Settings:
    """What shapes a prepared clip; recorded in it, so that a second run knows what is done. The command explains
    each."""

    size: int = 256
    smoothing: float = 0.7
    detect_every: int = 10
    min_face: float = 64
    margin: float = MARGIN
    min_seconds: float = 3
    max_gap: int = 12


class Job(NamedTuple):
    """A source and what is to become of it. `refused` holds the hash with which it was refused before, if it was."""

    source: Path
    root: Path
    name: str
    settings: Settings
    features: tuple[str, ...]
    overlay: Path | None = None
    refused: dict[str, Any] | None = None
    models: SpeechModels = SpeechModels()

    @property
    def identity(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return str(self.source)


class Outcome(NamedTuple):
    """A job's end; `refusal` lets a second run see that neither file nor settings have changed since."""

    row: ClipRow
    action: Literal["prepared", "skipped", "refused", "still refused"]
    refusal: dict[str, Any] | None = None


def run_job(job: Job, report: Report) -> Outcome:
    """Prepare a clip, or leave it as it is where source and settings are those of last time. Runs in a worker."""
    try:
        identity = {"sha256": sha256(job.source), "settings": asdict(job.settings)}
    except OSError as error:
        return _refuse(job, f"unreadable file: {error.strerror}", None)
    if job.refused is not None and {key: job.refused.get(key) for key in identity} == identity:
        return _refuse(job, job.refused["reason"], job.refused, "still refused")
    try:
        clip = finished_clip(job, identity)
        action: Literal["prepared", "skipped"] = "skipped" if clip else "prepared"
        clip = clip or prepare_clip(job, identity, report)
    except UserError as error:
        reason = str(error).removeprefix(f"{job.source}: ")
        return _refuse(job, reason, {**identity, "reason": reason})
    if job.overlay is not None:
        write_overlay(clip, job.overlay / f"{job.name}.png")
    return Outcome(ClipRow(job.name, job.name, clip.frames, str(job.source), "ok"), action)


def prepare_clip(job: Job, identity: dict[str, Any], report: Report) -> Clip:
    """Read the source twice, once for the face and once for the frames, so that memory does not grow with its length.

    Raises:
        UserError: the clip is refused; the message is the reason.
    """
    info = probe(job.source)
    return _write(job, identity, info, _audible(job.source, info, job.settings), report)


def _write(job: Job, identity: dict[str, Any], info: VideoInfo, audio: np.ndarray, report: Report) -> Clip:
    settings, expected = job.settings, 2 * round(info.duration * FPS)
    seen = track_faces(_reported(read_frames(job.source, FPS), 0, expected, report), detect_every=settings.detect_every)
    points = fill_gaps(seen.landmarks, settings.max_gap, FPS)
    check_face(points, info.width, info.height, settings.min_face)
    points = smooth(points, settings.smoothing)
    crop = crop_square(points, info.width, info.height, settings.margin)
    frames = (cut_frame(frame, crop, settings.size) for frame in read_frames(job.source, FPS))
    write_clip(
        job.root,
        job.name,
        frames=_reported(frames, len(points), expected, report),
        audio=fit_audio(audio, len(points) * SAMPLES_PER_FRAME),
        landmarks=to_fractions(points, crop),
        features=[open_features(kind, job.models) for kind in job.features],
        info={
            "source": {"path": str(job.source), "sha256": identity["sha256"], **info._asdict()},
            "audio_seconds": len(audio) / RATE,
            "settings": identity["settings"],
            "crop": crop._asdict(),
            "faces": {
                "seen": seen.faces_seen,
                "chosen": "largest over time",
                "detections": seen.detections,
                "interpolated": seen.missed,
            },
            "versions": versions(),
        },
    )
    return Clip(job.root, job.name, len(points))


def finished_clip(job: Job, identity: dict[str, Any]) -> Clip | None:
    """The clip that is there already, if it came from the same file and settings; adds features that it lacks."""
    clip = Clip(job.root, job.name, 0)
    if not (clip.folder / "clip.json").exists():
        return None
    info = clip.info()
    if (info.get("source", {}).get("sha256"), info.get("settings")) != (identity["sha256"], identity["settings"]):
        return None
    clip = Clip(job.root, job.name, info["frames"])
    add_missing([clip], job.features, job.models)
    return clip


def cut_frame(frame: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The square of a frame at the clip's size, (size, size, 3) uint8; Lanczos over all pixels, so nothing aliases."""
    square = frame[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
    if crop.side == size:
        return square
    return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.LANCZOS))


def to_fractions(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Pixels of the source to fractions of the side; dlib counts from a pixel's middle, fractions from the edge."""
    return ((points + 0.5 - [crop.x, crop.y]) / crop.side).astype(np.float32)


def _audible(source: Path, info: VideoInfo, settings: Settings) -> np.ndarray:
    """The sound, after the checks that cost nothing."""
    if not info.has_audio:
        raise UserError("no audio track")
    if info.duration < settings.min_seconds:
        raise UserError(f"{info.duration:.1f} s long, at least {settings.min_seconds:g} s are needed")
    return read_audio(source, RATE)


def _reported(frames: Iterable[np.ndarray], before: int, total: int, report: Report) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, before + 1):
        if number % REPORT_EVERY == 0:
            report(number, total)
        yield frame


def _refuse(
    job: Job, reason: str, refusal: dict[str, Any] | None, action: Literal["refused", "still refused"] = "refused"
) -> Outcome:
    return Outcome(ClipRow(job.name, job.name, 0, str(job.source), "refused", reason), action, refusal)
