"""The released code's data layout -> prepared clips: what others extracted is taken over, nothing is detected anew.

The landmarks stay as they are, without smoothing. The layout holds no sound; `--audio` brings it.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from difftalk_pl.data.audio import FPS, RATE, FeatureKind
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, ClipRow, versions, write_clip
from difftalk_pl.data.files.pool import Report
from difftalk_pl.data.legacy.audio import KIND, KnownSteps, Rebuilt, rebuild
from difftalk_pl.data.legacy.files import read_image, read_landmarks, read_pictures, read_windows
from difftalk_pl.data.legacy.jobs import LegacyJob
from difftalk_pl.data.legacy.layout import AUDIO, IMAGES, LANDMARKS, Layout, Piece, sides
from difftalk_pl.data.media.containers import WriteError
from difftalk_pl.data.media.video import fit_audio, read_audio
from difftalk_pl.data.overlay import write_overlay
from difftalk_pl.data.source import REPORT_EVERY, Outcome
from difftalk_pl.data.speech.features import open_features
from difftalk_pl.errors import UserError, reason_of

log = logging.getLogger(__name__)

NO_SOUND = "none in the legacy layout"
MISSING_END = 0.5  # seconds of sound that may be missing at the end
Record = dict[str, Any]


def run_legacy_job(job: LegacyJob, report: Report, ready: Callable[[], None] = lambda: None) -> Outcome:
    """Make a clip of a piece, or leave it as it is where its files and settings are those of last time.

    Runs in a worker; `ready` is called before the clip is put into its place.
    """
    if job.piece.problem:
        return _refuse(job, job.piece.problem, None)
    try:
        identity = _identity(job)
    except OSError as error:
        return _refuse(job, f"{error.filename}: {error.strerror}", None)
    if job.refused is not None and {key: job.refused.get(key) for key in identity} == identity:
        return _refuse(job, job.refused["reason"], job.refused, "still refused")
    try:
        clip = _finished(job, identity)
        action: Literal["prepared", "skipped"] = "skipped" if clip else "prepared"
        clip = clip or _convert(job, identity, report, ready)
    except ConnectionError:  # nobody listens to the reports any more
        raise
    except (WriteError, OSError) as error:
        return _refuse(job, reason_of(error), None)  # the disk's fault; the next run tries again
    except UserError as error:
        return _refuse(job, str(error), {**identity, "reason": str(error)})
    if job.overlay is not None:
        write_overlay(clip, job.overlay / f"{job.name}.png")
    return Outcome(ClipRow(job.name, job.identity, clip.frames, str(job.source), "ok", clip.info()["note"]), action)


def _convert(job: LegacyJob, identity: Record, report: Report, ready: Callable[[], None]) -> Clip:
    """Read every file but the images, then stream those, so that memory does not grow with their number."""
    frames, total = job.piece.frames, 2 * job.piece.frames
    images = [job.file(IMAGES, frame) for frame in range(frames)]
    points = (read_landmarks(job.file(LANDMARKS, frame)) for frame in range(frames))
    pictures = read_pictures(_reported(images, 0, total, report), points, job.settings.min_face)
    sound = _sound(job)
    rebuilt = _rebuilt(job)
    features = _features(job, sound, rebuilt)
    pixels = (read_image(path, job.settings.size) for path in images)
    write_clip(
        job.root,
        job.name,
        frames=_reported(pixels, frames, total, report),
        audio=fit_audio(np.zeros(0, np.int16) if sound is None else sound, frames * SAMPLES_PER_FRAME),
        landmarks=pictures.landmarks,
        features=features,
        info={
            "source": {
                "path": str(job.source),
                "layout": "released DiffTalk code",
                "id": job.identity,
                "frames": [job.piece.first, job.piece.last],
                "sides": sorted(set(pictures.sides)),
            },
            **identity,
            "audio": NO_SOUND if sound is None else str(job.sound),
            "audio_windows": rebuilt.finding,
            "note": _note(job, sound, rebuilt, features),
            "features_remedy": _remedy(job, sound, features),
            "versions": versions(),
        },
        ready=ready,
    )
    return Clip(job.root, job.name, frames)


def _finished(job: LegacyJob, identity: Record) -> Clip | None:
    """The clip that is there already, if it came from the same files and settings."""
    clip = Clip(job.root, job.name, 0)
    if not (clip.folder / "clip.json").exists():
        return None
    info = clip.info()
    return Clip(job.root, job.name, info["frames"]) if {key: info.get(key) for key in identity} == identity else None


def _identity(job: LegacyJob) -> Record:
    """What a second run compares, as JSON gives it back."""
    settings = {**asdict(job.settings), "features": list(job.settings.features), "piece": job.piece._asdict()}
    return {"fingerprint": _fingerprint(job), "settings": settings}


def _fingerprint(job: LegacyJob) -> str:
    """SHA-256 over name, size and time of change of all files that the clip is made from."""
    digest = hashlib.sha256()
    for path in _files(job):
        there = path.stat()
        digest.update(f"{path.name} {there.st_size} {there.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(job: LegacyJob) -> Iterator[Path]:
    for kind in (IMAGES, LANDMARKS, *([AUDIO] if job.piece.windows else [])):
        yield from (job.file(kind, frame) for frame in range(job.piece.frames))
    if job.sound is not None:
        yield job.sound


def _sound(job: LegacyJob) -> np.ndarray | None:
    """The piece's part of its sound, (N,) int16: frame K of the layout is at K / 25 s."""
    if job.sound is None:
        return None
    start, end = job.piece.first * SAMPLES_PER_FRAME, (job.piece.last + 1) * SAMPLES_PER_FRAME
    sound = read_audio(job.sound, RATE)
    if len(sound) < end - MISSING_END * RATE:
        raise UserError(
            f"{job.sound}: ends at {len(sound) / RATE:.1f} s, but frame {job.piece.last} is at "
            f"{job.piece.last / FPS:.1f} s; give the sound of the whole video"
        )
    return sound[start:end]


def _rebuilt(job: LegacyJob) -> Rebuilt:
    if not job.piece.windows:
        return Rebuilt(None, f"no {AUDIO}/{job.identity}_*.npy")
    return rebuild(lambda frame: read_windows(job.file(AUDIO, frame)), job.piece.frames, job.piece.first)


def _features(job: LegacyJob, sound: np.ndarray | None, rebuilt: Rebuilt) -> list[FeatureKind]:
    """What the sound gives, and the steps of the layout unless the sound gives that kind. Silence gives nothing."""
    kinds = () if sound is None else job.settings.features
    features: list[FeatureKind] = [open_features(kind, job.models) for kind in kinds]
    if rebuilt.steps is not None and KIND not in kinds:
        features.append(KnownSteps(rebuilt.steps))
    return features


def _note(job: LegacyJob, sound: np.ndarray | None, rebuilt: Rebuilt, features: list[FeatureKind]) -> str:
    """The clip's `reason` in clips.csv: what a user must know of it."""
    names = ", ".join(kind.name for kind in features)
    windows = rebuilt.finding if rebuilt.steps is not None else f"{AUDIO} is not used: {rebuilt.finding}"
    kinds = f"features: {names}" if features else "no audio features, so for stage 1 alone"
    heard = "silent" if sound is None else _start(job.piece)
    return "; ".join(filter(None, [heard, kinds, windows, job.piece.note]))


def _start(piece: Piece) -> str:
    """A numbering from 1 may count frames or name moments: what it was taken for must be known."""
    return f"frame {piece.first} is taken to be at {piece.first / FPS:.2f} s of the sound" if piece.first else ""


def _remedy(job: LegacyJob, sound: np.ndarray | None, features: list[FeatureKind]) -> str:
    """What to do where features are asked for that the clip does not have."""
    give = f"give {'its sound' if sound is None else 'the kinds'} by prepare --from-legacy {job.source}"
    how = f"{give} --audio FOLDER --features KIND"
    if features:
        return f"{how}, or take data.features {features[0].name}"
    return f"{how}, or leave the clip out of stage 2"


def write_splits(root: Path, layout: Layout, clips: Sequence[Piece], usable: Collection[str]) -> None:
    """ROOT/splits/train.txt and test.txt from the layout's lists, for `data.split`.

    Args:
        clips: of the layout, as far as they could be prepared.
        usable: names of all clips of the dataset; those of other sources stay where they are listed.
    """
    own = {piece.name for piece in clips}
    for side, names in sides(layout, clips).items():
        path = root / "splits" / f"{side}.txt"
        there = path.read_text(encoding="utf-8").split() if path.exists() else []
        wanted = sorted({*names, *(name for name in there if name in usable and name not in own)})
        if not wanted:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in wanted), encoding="utf-8")
        log.info("%s lists %d clips; for --data.split.%s", path, len(wanted), side)


def _reported(items: Iterable, before: int, total: int, report: Report) -> Iterator:
    for number, item in enumerate(items, before + 1):
        if number % REPORT_EVERY == 0:
            report(number, total)
        yield item


def _refuse(
    job: LegacyJob, reason: str, refusal: Record | None, action: Literal["refused", "still refused"] = "refused"
) -> Outcome:
    return Outcome(ClipRow(job.name, job.identity, 0, str(job.source), "refused", reason), action, refusal)
