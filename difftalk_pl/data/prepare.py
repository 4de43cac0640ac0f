"""The command `prepare`: videos of people speaking -> a prepared dataset."""

import hashlib
import importlib.util
import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import TimeoutError as JobTimeout
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pebble import ProcessExpired
from rich.markup import escape

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, create_dataset, read_index, write_clip, write_index
from difftalk_pl.data.features.kinds import Kind, SpeechModels, open_features
from difftalk_pl.data.features.stored import add_missing, record_models
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.parallel import failure_reason, run_jobs
from difftalk_pl.data.sources import ClipSource, IdentityRule, find_scenes, find_sources
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.faces.crop import MARGIN, Crop, CutSquare, check_face, crop_square, face_size, fill_gaps, smooth
from difftalk_pl.faces.track import FaceTrack, track_faces
from difftalk_pl.files import file_hash, read_json, write_json
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.files import WriteError, check_span
from difftalk_pl.media.video import VideoInfo, probe, read_frames
from difftalk_pl.progress import console, progress_bar

log = logging.getLogger(__name__)

KILLED = (-9, -15)  # exit codes of a process that someone ended: the video may be all right
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
    """A clip to make."""

    source: ClipSource
    root: Path
    settings: Settings
    features: tuple[str, ...] = ()
    models: SpeechModels = SpeechModels()


def prepare(
    sources: list[Path],
    out: Path,
    size: Literal[64, 128, 256, 512] = 256,
    features: list[Kind] | Kind = "mfcc",
    workers: int = 1,
    shard: str | None = None,
    smoothing: float = 0.7,
    detect_every: int = 10,
    min_face: float = 64,
    margin: float = MARGIN,
    min_seconds: float = 3,
    clip_timeout: float | None = None,
    split_scenes: bool = False,
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
    identity: IdentityRule = "auto",
) -> None:
    """Turn videos of people speaking into a prepared dataset: frames at 25 fps, 16 kHz audio, landmarks, features.

    Every video becomes a clip, named by its path below SOURCE, or is refused, with its reason in clips.csv. Run the
    same command again to continue after an interruption or to add videos: only what is missing or has changed is made.
    Remove OUT/refused to try refused clips again. On a cluster, run it once for each shard.

    Args:
        sources: Video files, folders that are searched for them, and lists of clips (.csv).
        out: The dataset's folder; made, or added to.
        size: Side of the square frames in pixels. One dataset has one size.
        features: Kinds of speech features to compute: mfcc, deepspeech, wav2vec2, hubert; several as [a,b].
        workers: Processes; each prepares one clip at a time.
        shard: I/N: prepare only the I-th of N parts of the clips, for job arrays.
        smoothing: Deviation in frames of the Gaussian that smooths the landmarks along time; 0 for none.
        detect_every: Frames between two runs of the face detector; landmarks are found in every frame.
        min_face: Smallest face to accept, from ear to ear, pixels of the source.
        margin: Side of the square that is cut out, as a multiple of the face (brows to chin or ear to ear).
        min_seconds: Shortest clip to accept.
        clip_timeout: Seconds after which a clip is given up and refused.
        split_scenes: Cut videos at scene changes, one clip for each scene; needs PySceneDetect.
        deepspeech: The frozen graph of DeepSpeech 0.1.0, output_graph.pb, for features deepspeech.
        speech_model: Folder or hub name of the network for features wav2vec2 or hubert.
        speech_layer: Layer of that network whose output is taken; the last by default.
        identity: Who is in a video: name (each file another person), folder (the first one below SOURCE), or auto,
            which knows the paths of HDTF, VoxCeleb, MEAD and LRS and takes the name for other videos.
    """
    settings = Settings(size, smoothing, detect_every, min_face, margin, min_seconds)
    kinds = (features,) if isinstance(features, str) else tuple(features)
    models = SpeechModels(deepspeech, speech_model, speech_layer)
    chosen = take_shard(find_sources(sources, identity), shard)
    create_dataset(out, size)
    record_models(out, kinds, models)
    if split_scenes:
        if importlib.util.find_spec("scenedetect") is None:
            raise UserError("--split_scenes needs PySceneDetect: pip install 'difftalk_pl[scenes]'")
        found = run_jobs(find_scenes, chosen, workers)
        chosen = [one for whole, scenes in found for one in ([whole] if isinstance(scenes, Exception) else scenes)]
    _check_names(out, chosen)
    jobs = [Job(source, out, settings, kinds, models) for source in chosen]
    try:
        failed = _run_all(jobs, workers, clip_timeout)
    finally:
        write_index(out)
    if failed:
        raise UserError(f"{out}: {failed} clips failed for the reasons above; the same command tries them again")
    if shard is None and not any(row["status"] == "ok" for row in read_index(out)):
        raise UserError(f"{out}: no clip could be prepared; the reasons are in {out / 'clips.csv'}")


def take_shard(sources: Sequence[ClipSource], shard: str | None) -> list[ClipSource]:
    """Choose the sources of part I of N by a hash of their names; I counts from 0 or from 1."""
    if shard is None:
        return list(sources)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 0 <= int(found[1]) <= int(found[2]) > 0:
        raise UsageError(f"--shard {shard}: expected I/N, such as 0/16 to 15/16 or 1/16 to 16/16")
    part, parts = int(found[1]), int(found[2])
    hashes = (int(hashlib.sha256(source.name.encode()).hexdigest(), 16) for source in sources)
    return [source for source, number in zip(sources, hashes, strict=True) if number % parts == part % parts]


def _check_names(out: Path, sources: Sequence[ClipSource]) -> None:
    """Refuse to overwrite a clip that another file made which still exists."""
    made_from = {row["name"]: row["source"] for row in read_index(out)}
    for source in sources:
        other = made_from.get(source.name, str(source.video))
        if other != str(source.video) and Path(other).exists():
            hint = "rename one of them, or give another --out"
            raise UserError(f"{source.video}: {out} has clip {source.name!r} from {other}; {hint}")


def _run_all(jobs: Sequence[Job], workers: int, timeout: float | None) -> int:
    """Make the clips, print each problem in one line and a summary at the end; returns how many failed."""
    counts, started = Counter[str](), time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(jobs))
        for job, result in run_jobs(run_job, jobs, workers, timeout):
            action, reason = _give_up(job, result) if isinstance(result, Exception) else result
            if reason:
                console.print(f"[yellow]{action}[/] {escape(f'{job.source.name}: {reason}')}", soft_wrap=True)
            counts[action] += 1
            bar.advance(task)
    summary = ", ".join(f"{count} {action}" for action, count in counts.items())
    console.print(f"{summary} in {time.monotonic() - started:.1f} s", soft_wrap=True)
    return counts["failed"]


def _give_up(job: Job, error: Exception) -> tuple[str, str]:
    """Refuse a clip that took too long, crashed its process or raised; one whose process was killed is tried again."""
    if not isinstance(error, ProcessExpired | JobTimeout):
        log.error("%s", job.source.video, exc_info=error)
    killed = isinstance(error, ProcessExpired) and error.exitcode in KILLED
    return ("failed", failure_reason(error)) if killed else _refuse(job, failure_reason(error))


def run_job(job: Job) -> tuple[str, str]:
    """Make a clip, or keep what the last run made of the same source and settings.

    Returns:
        prepared, skipped, refused or failed, and the reason; a failed one, as by a full disk, is tried again.
    """
    try:
        (clip_json, clip), (refusal, refused) = _records(job)
        now = _describe(job)
        is_there = clip.get("made_from") == now["made_from"]
        if not is_there and refused.get("made_from") == now["made_from"]:
            return "refused", refused["reason"]
        if not is_there:
            make_clip(job, now)
        else:
            if clip["identity"] != job.source.identity:
                write_json(clip_json, {**clip, "identity": job.source.identity})
            add_missing(Clip(job.root, job.source.name, clip["frames"]), job.features, job.models)
        refusal.unlink(missing_ok=True)
        return ("skipped" if is_there else "prepared"), ""
    except (UserError, OSError) as error:
        reason = str(error).removeprefix(f"{job.source.video}: ")
        by_system = isinstance(error, OSError | WriteError) or isinstance(error.__cause__, OSError)
        return ("failed", reason) if by_system else _refuse(job, reason)


def _records(job: Job) -> list[tuple[Path, dict[str, Any]]]:
    """Return where a clip and where a refusal is described, and what is there."""
    name = job.source.name
    paths = job.root / "clips" / name / "clip.json", job.root / "refused" / f"{name}.json"
    return [(path, read_json(path)) for path in paths]


def _refuse(job: Job, reason: str) -> tuple[str, str]:
    """Write down why there is no clip, so that it is not tried again until source or settings change."""
    record = {"name": job.source.name, "identity": job.source.identity, "reason": reason}
    try:
        (job.root / "refused").mkdir(exist_ok=True)
        write_json(job.root / "refused" / f"{job.source.name}.json", {**record, **_describe(job)})
    except OSError as error:
        return "failed", f"{reason} ({error})"
    return "refused", reason


def _describe(job: Job) -> dict[str, dict[str, Any]]:
    """Describe the file, and what a clip is made from: its content, the part of it and the settings."""
    source, status = job.source, job.source.video.stat()
    file = {"path": str(source.video), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    known = [record for _, record in _records(job) if record.get("source", {}).items() >= file.items()]
    digest = known[0]["made_from"]["sha256"] if known else file_hash(source.video)
    part = {"span": [source.start, source.end], "crop": source.crop and list(source.crop)}
    return {"source": file, "made_from": {"sha256": digest, **part, "settings": asdict(job.settings)}}


def make_clip(job: Job, description: dict[str, dict[str, Any]]) -> None:
    """Write a clip. Raises UserError if it is refused; the message is the reason.

    The source is read twice, once for the face and once for the frames, so that memory does not grow with its length.
    """
    source, settings = job.source, job.settings
    info = probe(source.video)
    if not info.has_audio:
        raise UserError("no audio track")
    check_span(source.video, source.start, source.end, info.duration)
    seconds = min(source.end or info.duration, info.duration) - source.start
    if seconds < settings.min_seconds - 0.5 / FPS:
        raise UserError(f"{seconds:.1f} s long, at least {settings.min_seconds:g} s are needed")
    audio = read_audio(source.video, RATE, source.start, source.end)
    points, crop, track = _find_face(source, info, settings)
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
            "crop": crop._asdict(),
            "faces": {"seen": track.faces_seen, "detections": track.detections, "interpolated": track.missed},
        },
    )


def _find_face(source: ClipSource, info: VideoInfo, settings: Settings) -> tuple[np.ndarray, Crop, FaceTrack]:
    """Find landmarks (T, 68, 2) in pixels and the square to cut: the given crop if a face fills it, else one about the
    face.
    """
    width, height, given = info.width, info.height, source.crop
    if given is not None and given.x + given.side <= width and given.y + given.side <= height:
        with suppress(UserError):  # no face in it: search the whole picture
            points, track = _track(source, settings, given, given.side, given.side)
            if given.side <= LARGEST_CROP * face_size(points):
                return points, given, track
    points, track = _track(source, settings, Crop(0, 0, max(width, height)), width, height)
    return points, crop_square(points, width, height, settings.margin), track


def _track(clip: ClipSource, settings: Settings, area: Crop, width: int, height: int) -> tuple[np.ndarray, FaceTrack]:
    """Follow the face in an area of width x height pixels; returns smooth landmarks in pixels of the frame."""
    x, y, side = area
    frames = read_frames(clip.video, FPS, clip.start, clip.end, ToLuma)
    parts = (np.ascontiguousarray(frame[y : y + side, x : x + side]) for frame in frames)
    track = track_faces(parts, settings.detect_every)
    points = fill_gaps(track.landmarks, settings.max_gap, FPS)
    check_face(points, width, height, settings.min_face)
    return smooth(points, settings.smoothing) + np.array([x, y], np.float32), track


def to_fractions(points: np.ndarray, crop: Crop) -> np.ndarray:
    """Convert pixels of the source to fractions of the side; dlib counts from a pixel's middle, fractions from the
    edge."""
    return ((points + 0.5 - [crop.x, crop.y]) / crop.side).astype(np.float32)
