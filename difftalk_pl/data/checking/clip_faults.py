"""What is wrong with one prepared clip: every file held against its format and against the others. Runs in a worker."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from difftalk_pl.data.clips import SUMS, Clip
from difftalk_pl.data.files.pool import Report
from difftalk_pl.data.files.sums import check_sum, read_sums
from difftalk_pl.data.latents.cache import LatentCache
from difftalk_pl.data.media.containers import open_media, video_stream
from difftalk_pl.data.speech.features import known_kinds
from difftalk_pl.errors import UserError, reason_of

CLIP_FILES = {"video.mp4", "audio.wav", "landmarks.npy", "clip.json", "features", SUMS}
LEFTOVER = re.compile(r"\..+\.([0-9a-f]{16}|\d+)\.tmp(\.jpg)?")  # files, as writers name them
ABANDONED = 3600.0  # s without a change after which a half-written file has no writer any more
CHUNK = 256  # frames of latents in memory at a time
STRICT = {"err_detect": "explode+crccheck+bitstream+buffer"}  # a decoder conceals damage unless it is told not to
ROW_REMEDY = "run prepare again with the same sources, which writes the row anew"
T = TypeVar("T")
Mend = Literal["", "remove", "remake"]  # remove: the file is made again by a command; remake: the whole clip is


class Fault(NamedTuple):
    """Something that is not as it should be.

    what: damaged, mismatched, missing, orphan, leftover, dead claim, foreign.
    file: it.
    mend: what --repair may do.
    harmless: said, and no reason to fail.
    """

    what: str
    file: Path
    why: str
    remedy: str
    mend: Mend = ""
    clip: str = ""
    harmless: bool = False


class Job(NamedTuple):
    """A clip and how it is looked at. deep: decode and read everything."""

    clip: Clip
    size: int | None
    caches: tuple[LatentCache, ...]
    deep: bool


class Findings(NamedTuple):
    """faults, and what has to be the same in all clips: channels of features and shapes of latents, by their file."""

    faults: list[Fault]
    shapes: dict[Path, tuple[int, ...]]


def check_clip(job: Job, report: Report) -> Findings:
    """Look at a clip that clips.csv calls usable."""
    clip, found = job.clip, Findings([], {})
    if clip.folder.is_symlink() and not clip.folder.exists():
        why = f"it is a link to {clip.folder.readlink()}, and that is not there"
        return Findings([Fault("missing", clip.folder, why, "bring back what it leads to", clip=clip.name)], {})
    if not clip.folder.is_dir():
        why = "clips.csv calls it usable, and its folder is not there"
        return Findings([Fault("missing", clip.folder, why, "prepare it again", "remake", clip.name)], {})
    counted, _ = _tried(lambda: replace(clip, frames=int(clip.info()["frames"])))
    if counted is not None and counted != clip and not _main_faults(job, counted):
        why = f"it says {clip.frames} frames of {clip.name}, and all files of the clip have {counted.frames}"
        found.faults.append(Fault("mismatched", clip.root / "clips.csv", why, ROW_REMEDY))
        clip = counted
    else:
        found.faults.extend(_main_faults(job, clip))
    found.faults.extend(other_files(clip))
    _check_features(clip, job.deep, found)
    for cache in job.caches:
        _check_latents(cache, clip, job.deep, found)
    return found


def _main_faults(job: Job, clip: Clip) -> list[Fault]:
    """Of what every clip has. Any of them is a reason to make the clip again."""
    checks: dict[str, Callable[[], None]] = {
        "clip.json": lambda: _check_info(clip),
        "video.mp4": lambda: _check_video(clip, job.size, job.deep),
        "audio.wav": lambda: _check_audio(clip),
        "landmarks.npy": lambda: _check_landmarks(clip),
    }
    faults, sums = [], read_sums(clip.folder / SUMS) if job.deep else {}
    for name, check in checks.items():
        path = clip.folder / name
        what, why = "damaged" if path.exists() else "missing", _tried(check, path)[1]
        if not why:
            what, why = "mismatched", _tried(partial(check_sum, path, sums, name), path)[1]
        if why:
            faults.append(Fault(what, path, why, "prepare its clip again", "remake", clip.name))
    return faults


def _tried(check: Callable[[], T], path: Path | None = None) -> tuple[T | None, str]:
    """What a check gives, and what is wrong, in one line; empty where all is well."""
    try:
        return check(), ""
    except (UserError, OSError, ValueError, LookupError, TypeError, EOFError) as error:
        return None, cause_of(error, path)


def cause_of(error: Exception, path: Path | None) -> str:
    """What an error says, without the file and the remedy, which stand beside it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    why = reason_of(error).removeprefix(f"{path}: ")
    return why.rpartition("; ")[0] or why if isinstance(error, UserError) else why


def _check_info(clip: Clip) -> None:
    info = clip.info()
    if not isinstance(info, dict):
        raise ValueError("no JSON object")
    for key, expected in (("name", clip.name), ("frames", clip.frames)):
        if info.get(key) != expected:
            raise ValueError(f"{key} is {info.get(key)!r}, and clips.csv says {expected!r}")


def _check_video(clip: Clip, size: int | None, deep: bool) -> None:
    """The index and the last frame, which a cut file lacks; deep: every frame, and nothing concealed."""
    reader = clip.reader()
    try:
        shape = reader[clip.frames - 1].shape
    finally:
        reader.close()
    if size is not None and shape != (size, size, 3):
        raise ValueError(f"{shape[1]} x {shape[0]} pixels, and dataset.json says {size} x {size}")
    if deep and (frames := _decoded(reader.path)) != clip.frames:
        raise ValueError(f"{frames} frames can be decoded, and clips.csv says {clip.frames}")


def _decoded(path: Path) -> int:
    """How many frames there are. Raises MediaError at the first that is damaged."""
    with open_media(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.options = STRICT
        return sum(1 for _ in container.decode(stream))


def _check_audio(clip: Clip) -> None:
    """Its head and its last frame's samples, which a cut file lacks."""
    clip.audio(clip.frames - 1, clip.frames)


def _check_landmarks(clip: Clip) -> None:
    _finite(clip.landmarks)


def _check_features(clip: Clip, deep: bool, found: Findings) -> None:
    sums = read_sums(clip.folder / SUMS) if deep else {}
    for path in sorted((clip.folder / "features").glob("[!.]*.npy")):
        if path.stem not in known_kinds() or path.is_dir():
            continue
        shape, why = _tried(partial(_features_shape, clip, path.stem), path)
        if shape is None:
            found.faults.append(feature_fault(clip, path, why, "damaged"))
        elif why := _tried(partial(check_sum, path, sums, f"features/{path.name}"), path)[1]:
            found.faults.append(feature_fault(clip, path, why, "mismatched"))
        else:
            found.shapes[path] = shape


def _features_shape(clip: Clip, kind: str) -> tuple[int, ...]:
    return _finite(clip.features(kind)).shape[1:]


def feature_fault(clip: Clip, path: Path, why: str, what: str) -> Fault:
    """Features that the sound does not give, those of a released layout, are nothing that a command makes again."""
    instead, unreadable = _tried(clip.features_remedy)
    if instead or unreadable:
        return Fault(what, path, why, instead or "prepare its clip again", clip=clip.name)
    return Fault(what, path, why, f"remove it and run add-features --features {path.stem}", "remove", clip.name)


def _finite(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ValueError("not finite everywhere")
    return array


def _check_latents(cache: LatentCache, clip: Clip, deep: bool, found: Findings) -> None:
    path = cache.path(clip.name)
    if not path.exists():
        return
    if path.is_dir():
        found.faults.append(foreign(path))
        return
    sums = read_sums(cache.sums(clip.name)) if deep else {}
    shape, why = _tried(lambda: _latents_shape(cache, clip, deep), path)
    if shape is None:
        found.faults.append(latent_fault(path, why, "damaged"))
    elif others := cache.made_from_others(clip):
        why = f"made from another {' and '.join(others)} than the clip has"
        found.faults.append(latent_fault(path, why, "mismatched"))
    elif why := _tried(partial(check_sum, path, sums, path.name), path)[1]:
        found.faults.append(latent_fault(path, why, "mismatched"))
    else:
        found.shapes[path] = shape


def _latents_shape(cache: LatentCache, clip: Clip, deep: bool) -> tuple[int, ...]:
    latents = cache.open(clip)
    for start in range(0, clip.frames if deep else 0, CHUNK):
        _finite(latents[:, start : start + CHUNK])
    return latents.shape[2:]


def latent_fault(path: Path, why: str, what: str) -> Fault:
    return Fault(what, path, why, "remove it and run cache-latents", "remove")


def other_files(clip: Clip) -> Iterator[Fault]:
    """What no format names, folders in the place of files among it, and what writers left."""
    kinds = {f"{kind}.npy" for kind in known_kinds()}
    yield from strangers(clip.folder, lambda name: name in CLIP_FILES)
    yield from strangers(clip.folder / "features", lambda name: name in kinds)
    files = (clip.folder / name for name in CLIP_FILES - {"features"})
    yield from map(foreign, filter(Path.is_dir, (*files, *(clip.folder / "features" / name for name in kinds))))


def strangers(folder: Path, known: Callable[[str], bool]) -> Iterator[Fault]:
    """Files of a folder that no format names: leftovers of writers, and files of others."""
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            yield leftover(Path(entry.path))
        elif not known(entry.name):
            yield foreign(Path(entry.path))


def foreign(path: Path) -> Fault:
    return Fault("foreign", path, "no part of a dataset", "move it elsewhere, if anybody needs it", harmless=True)


def leftover(path: Path, dead: bool | None = None) -> Fault:
    """Half-written. dead: whether its writer is; None where only the time of the last change can tell."""
    if dead is None:
        dead = time.time() - _last_change(path) > ABANDONED
    if not dead:
        return Fault(
            "leftover", path, "it is being written, or its writer stopped", "look again in an hour", harmless=True
        )
    return Fault("leftover", path, "half-written by a command that was killed", "remove it", "remove")


def _last_change(path: Path) -> float:
    try:
        return max(one.stat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:  # gone meanwhile, or renamed into its place
        return time.time()
