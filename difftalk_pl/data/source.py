"""One source video, or a part of one -> one prepared clip."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, ClipRow, versions, write_clip
from difftalk_pl.data.features.kinds import SpeechModels, open_features
from difftalk_pl.data.features.stored import add_missing
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.files.pool import Report
from difftalk_pl.data.overlay import write_overlay
from difftalk_pl.data.sources.clip_list import Piece
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.faces.crop import MARGIN, Crop, CutSquare, check_face, crop_square, fill_gaps, smooth
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.files import WriteError, check_span
from difftalk_pl.media.video import VideoInfo, probe, read_frames
from difftalk_pl.models.pretrained import file_hash

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

    piece: Piece
    root: Path
    settings: Settings
    features: tuple[str, ...]
    overlay: Path | None = None
    refused: dict[str, Any] | None = None
    models: SpeechModels = SpeechModels()

    @property
    def source(self) -> Path:
        return self.piece.video

    @property
    def name(self) -> str:
        return self.piece.name

    @property
    def identity(self) -> str:
        return self.piece.identity or self.name

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return str(self.source) if self.piece.is_whole else f"{self.source}, {self.name}"


class Outcome(NamedTuple):
    """A job's end; `refusal` lets a second run see that neither file nor settings have changed since."""

    row: ClipRow
    action: Literal["prepared", "skipped", "refused", "still refused"]
    refusal: dict[str, Any] | None = None


def run_job(job: Job, report: Report, ready: Callable[[], None] = lambda: None) -> Outcome:
    """Prepare a clip, or leave it as it is where source and settings are those of last time. Runs in a worker.

    Args:
        ready: called before the clip is put into its place; what it raises keeps the place as it is.
    """
    try:
        made_from = _made_from(job)
    except OSError as error:
        return _refuse(job, f"unreadable file: {error.strerror}", None)
    if job.refused is not None and _is_same(job.refused, made_from):
        return _refuse(job, job.refused["reason"], job.refused, "still refused")
    try:
        clip = finished_clip(job, made_from, ready)
        action: Literal["prepared", "skipped"] = "skipped" if clip else "prepared"
        clip = clip or prepare_clip(job, made_from, report, ready)
    except ConnectionError:  # nobody listens to the reports any more
        raise
    except (WriteError, OSError) as error:
        return _refuse(job, reason_of(error), None)  # the disk's fault; the next run tries again
    except UserError as error:
        reason = str(error).removeprefix(f"{job.source}: ")
        return _refuse(job, reason, {**made_from, "reason": reason})
    if job.overlay is not None:
        write_overlay(clip, job.overlay / f"{job.name}.png")
    return Outcome(ClipRow(job.name, job.identity, clip.frames, str(job.source), "ok"), action)


def prepare_clip(job: Job, made_from: dict[str, Any], report: Report, ready: Callable[[], None] = lambda: None) -> Clip:
    """Read the source twice, once for the face and once for the frames, so that memory does not grow with its length.

    Raises:
        UserError: the clip is refused; the message is the reason.
    """
    info = probe(job.source)
    return _write(job, made_from, info, _audible(job.piece, info, job.settings), report, ready)


def _write(
    job: Job,
    made_from: dict[str, Any],
    info: VideoInfo,
    audio: np.ndarray,
    report: Report,
    ready: Callable[[], None],
) -> Clip:
    settings, expected = job.settings, 2 * round(_seconds(job.piece, info) * FPS)
    part = job.source, FPS, job.piece.start, job.piece.stop
    frames = _reported(read_frames(*part, convert=ToLuma), 0, expected, report)
    seen = track_faces(frames, detect_every=settings.detect_every)
    points = fill_gaps(seen.landmarks, settings.max_gap, FPS)
    check_face(points, info.width, info.height, settings.min_face)
    points = smooth(points, settings.smoothing)
    crop = crop_square(points, info.width, info.height, settings.margin)
    squares = read_frames(*part, convert=partial(CutSquare, crop=crop, size=settings.size))
    write_clip(
        job.root,
        job.name,
        frames=_reported(squares, len(points), expected, report),
        audio=fit_audio(audio, len(points) * SAMPLES_PER_FRAME),
        landmarks=to_fractions(points, crop),
        features=[open_features(kind, job.models) for kind in job.features],
        info={
            "source": {**made_from["source"], **info._asdict()},
            "audio_seconds": len(audio) / RATE,
            "settings": made_from["settings"],
            "crop": crop._asdict(),
            "faces": {
                "seen": seen.faces_seen,
                "chosen": "largest over time",
                "detections": seen.detections,
                "interpolated": seen.missed,
                "longest_gap": seen.longest_gap,
            },
            "versions": versions(),
        },
        ready=ready,
    )
    return Clip(job.root, job.name, len(points))


def finished_clip(job: Job, made_from: dict[str, Any], ready: Callable[[], None] = lambda: None) -> Clip | None:
    """The clip that is there already, if it came from the same file and settings; adds features that it lacks."""
    info = _info(job)
    if not _is_same(info, made_from):
        return None
    clip = Clip(job.root, job.name, info["frames"])
    add_missing([clip], job.features, job.models)
    return clip


def to_fractions(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Pixels of the source to fractions of the side; dlib counts from a pixel's middle, fractions from the edge."""
    return ((points + 0.5 - [crop.x, crop.y]) / crop.side).astype(np.float32)


def _made_from(job: Job) -> dict[str, Any]:
    """What a second run compares: content and part of the source, and settings."""
    there = job.source.stat()
    file = {"path": str(job.source), "bytes": there.st_size, "mtime_ns": there.st_mtime_ns}
    part = {} if job.piece.is_whole else {"span": [job.piece.start, job.piece.stop]}
    return {"source": {**file, "sha256": _content(job, file), **part}, "settings": asdict(job.settings)}


def _content(job: Job, file: dict[str, Any]) -> str:
    """The source's SHA-256: known from the last time where file, size and time of change are the same."""
    for known in (job.refused or {}, _info(job)):
        before = known.get("source", {})
        if {key: before.get(key) for key in file} == file:
            return before["sha256"]
    return _sha256(*file.values())


def _info(job: Job) -> dict[str, Any]:
    """clip.json of the clip that is there; empty where there is none, or none that can be read."""
    try:
        return Clip(job.root, job.name, 0).info()
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)  # a video may have hundreds of clips
def _sha256(path: str, size: int, changed: int) -> str:
    return file_hash(Path(path))


def _is_same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a clip or a refusal was made from the same; settings that it does not name had their defaults."""
    source = before.get("source", {})
    settings = {**asdict(Settings()), **before.get("settings", {})}
    what = [source.get(key) == now["source"].get(key) for key in ("sha256", "span")]
    return all(what) and settings == now["settings"]


def _seconds(piece: Piece, info: VideoInfo) -> float:
    return (info.duration if piece.stop is None else min(piece.stop, info.duration)) - piece.start


def _audible(piece: Piece, info: VideoInfo, settings: Settings) -> np.ndarray:
    """The sound, after the checks that cost nothing."""
    if not info.has_audio:
        raise UserError("no audio track")
    check_span(piece.video, piece.start, piece.stop, info.duration)
    if (seconds := _seconds(piece, info)) < settings.min_seconds - 0.5 / FPS:
        raise UserError(f"{max(seconds, 0):.1f} s long, at least {settings.min_seconds:g} s are needed")
    return read_audio(piece.video, RATE, piece.start, piece.stop)


def _reported(frames: Iterable[np.ndarray], before: int, total: int, report: Report) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, before + 1):
        if number % REPORT_EVERY == 0:
            report(number, total)
        yield frame


def _refuse(
    job: Job, reason: str, refusal: dict[str, Any] | None, action: Literal["refused", "still refused"] = "refused"
) -> Outcome:
    return Outcome(ClipRow(job.name, job.identity, 0, str(job.source), "refused", reason), action, refusal)
