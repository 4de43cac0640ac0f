"""Make one clip: find the face, cut the frames to a square, and write them with audio and features."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, versions, write_clip
from difftalk_pl.data.features.kinds import SpeechModels, open_features
from difftalk_pl.data.features.stored import add_missing
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.sources import ClipSource
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import MARGIN, Crop, CutSquare, check_face, crop_square, face_size, fill_gaps, smooth
from difftalk_pl.faces.track import FaceTrack, track_faces
from difftalk_pl.files import file_hash, write_json
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.files import WriteError, check_span
from difftalk_pl.media.video import VideoInfo, probe, read_frames

LARGEST_CROP = 4.0  # side of a given crop over the face, ear to ear; HDTF's lie near 2.5


@dataclass(frozen=True)
class Settings:
    """What shapes a clip; recorded in clip.json, so that a second run knows what has changed. See `prepare`."""

    size: int = 256
    smoothing: float = 0.7
    detect_every: int = 10
    min_face: float = 64
    margin: float = MARGIN
    min_seconds: float = 3
    max_gap: int = 12  # frames without a face that are interpolated


class Job(NamedTuple):
    """A clip to make. `retry`: even if it was refused before from the same source with the same settings."""

    source: ClipSource
    root: Path
    settings: Settings
    features: tuple[str, ...] = ()
    models: SpeechModels = SpeechModels()
    retry: bool = False

    @property
    def records(self) -> tuple[Path, Path]:
        """Return where a clip and where a refusal is described."""
        name = self.source.name
        return self.root / "clips" / name / "clip.json", self.root / "refused" / f"{name}.json"


class Outcome(NamedTuple):
    """What became of a job. A failed one, as by a full disk, is tried again by the next run."""

    action: Literal["prepared", "skipped", "refused", "still refused", "failed"]
    reason: str = ""
    frames: int = 0


def run_job(job: Job) -> Outcome:
    """Make a clip, or keep it if source and settings are those of the last run. Runs in a worker."""
    try:
        return _run(job)
    except (UserError, OSError) as error:
        reason = str(error).removeprefix(f"{job.source.video}: ")
        by_system = isinstance(error, OSError | WriteError) or isinstance(error.__cause__, OSError)
        return Outcome("failed", reason) if by_system else refuse(job, reason)


def _run(job: Job) -> Outcome:
    now, (clip_json, refusal) = describe(job), job.records
    clip, refused = _read(clip_json), _read(refusal)
    if clip.get("made_from") == now["made_from"]:
        if clip["identity"] != job.source.identity:
            write_json(clip_json, {**clip, "identity": job.source.identity})
        add_missing(Clip(job.root, job.source.name, clip["frames"]), job.features, job.models)
        outcome = Outcome("skipped")
    elif refused.get("made_from") == now["made_from"] and not job.retry:
        return Outcome("still refused", refused["reason"])
    else:
        outcome = Outcome("prepared", frames=make_clip(job, now))
    refusal.unlink(missing_ok=True)
    return outcome


def refuse(job: Job, reason: str) -> Outcome:
    """Write down why there is no clip, so that it is not tried again until source or settings change."""
    try:
        record = {"name": job.source.name, "identity": job.source.identity, "reason": reason, **describe(job)}
        (job.root / "refused").mkdir(exist_ok=True)
        write_json(job.records[1], record)
    except OSError as error:
        return Outcome("failed", f"{reason} ({error})")
    return Outcome("refused", reason)


def describe(job: Job) -> dict[str, dict[str, Any]]:
    """Describe the file, and what a clip is made from: its content, the part of it and the settings."""
    source, status = job.source, job.source.video.stat()
    file = {"path": str(source.video), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    known = (record for record in map(_read, job.records) if record.get("source", {}).items() >= file.items())
    digest = next((record["made_from"]["sha256"] for record in known), None) or _hash(*file.values())
    part = {"span": [source.start, source.end], "crop": source.crop and list(source.crop)}
    return {"source": file, "made_from": {"sha256": digest, **part, "settings": asdict(job.settings)}}


def make_clip(job: Job, description: dict[str, dict[str, Any]]) -> int:
    """Write a clip and return its number of frames. Raises UserError if it is refused; the message is the reason.

    The source is read twice, once for the face and once for the frames, so that memory does not grow with its length.
    """
    source, settings = job.source, job.settings
    info = probe(source.video)
    audio = _read_speech(source, info, settings)
    points, crop, track, problem = _find_face(source, info, settings)
    cut = partial(CutSquare, crop=crop, size=settings.size)
    write_clip(
        job.root,
        source.name,
        frames=read_frames(source.video, FPS, source.start, source.end, cut),
        audio=fit_audio(audio, len(points) * SAMPLES_PER_FRAME),
        landmarks=to_fractions(points, crop),
        features=[open_features(kind, job.models) for kind in job.features],
        identity=source.identity,
        info={
            "source": {**description["source"], **info._asdict()},
            "made_from": description["made_from"],
            "audio_seconds": len(audio) / RATE,
            "crop": crop._asdict(),
            "given_crop_problem": problem,
            "faces": {"seen": track.faces_seen, "detections": track.detections, "interpolated": track.missed}
            | {"longest_gap": track.longest_gap},
            "versions": versions(),
        },
    )
    return len(points)


def _read_speech(source: ClipSource, info: VideoInfo, settings: Settings) -> np.ndarray:
    """Read the audio of the clip. Raises UserError if it is missing or the clip too short."""
    if not info.has_audio:
        raise UserError("no audio track")
    check_span(source.video, source.start, source.end, info.duration)
    seconds = min(source.end or info.duration, info.duration) - source.start
    if seconds < settings.min_seconds - 0.5 / FPS:
        raise UserError(f"{seconds:.1f} s long, at least {settings.min_seconds:g} s are needed")
    return read_audio(source.video, RATE, source.start, source.end)


def _find_face(source: ClipSource, info: VideoInfo, settings: Settings) -> tuple[np.ndarray, Crop, FaceTrack, str]:
    """Find landmarks (T, 68, 2) in pixels and the square to cut: the given crop if a face fills it, else one about the
    face; and say why the given crop was not used.
    """
    problem = ""
    if (crop := source.crop) is not None:
        try:
            if max(crop.x + crop.side - info.width, crop.y + crop.side - info.height) > 0:
                raise UserError(f"the crop reaches beyond the video's {info.width} x {info.height} pixels")
            points, track = _track(source, settings, crop)
            if crop.side > LARGEST_CROP * (size := face_size(points)):
                raise UserError(f"the crop is {crop.side / size:.1f} times as wide as the face in it")
            return points, crop, track, ""
        except UserError as error:
            problem = str(error)
    points, track = _track(source, settings, None, info.width, info.height)
    return points, crop_square(points, info.width, info.height, settings.margin), track, problem


def _track(
    source: ClipSource, settings: Settings, crop: Crop | None, width: int = 0, height: int = 0
) -> tuple[np.ndarray, FaceTrack]:
    """Follow the face in the crop, or in the whole frame; returns smooth landmarks in pixels of the frame."""
    x, y, side = crop or (0, 0, max(width, height))
    frames = read_frames(source.video, FPS, source.start, source.end, ToLuma)
    parts = (np.ascontiguousarray(frame[y : y + side, x : x + side]) for frame in frames)
    track = track_faces(parts, settings.detect_every)
    points = fill_gaps(track.landmarks, settings.max_gap, FPS)
    check_face(points, width or side, height or side, settings.min_face)
    return smooth(points, settings.smoothing) + np.array([x, y], np.float32), track


def to_fractions(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Convert pixels of the source to fractions of the side; dlib counts from a pixel's middle, fractions from the
    edge."""
    return ((points + 0.5 - [crop.x, crop.y]) / crop.side).astype(np.float32)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty if there is none, or none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)  # a video may have hundreds of clips
def _hash(path: str, size: int, changed: int) -> str:
    return file_hash(Path(path))
