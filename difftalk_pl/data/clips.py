"""The prepared-clip format: writing a clip whole or not at all, and opening it without reading it.

ROOT/dataset.json and ROOT/clips.csv describe the dataset; ROOT/clips/NAME/ holds one clip. ARCHITECTURE.md lists the
files.
"""

import csv
import glob
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difftalk_pl.data.features.kinds import FeatureKind
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.files.arrays import map_array
from difftalk_pl.data.files.leftovers import OLD, aside_name
from difftalk_pl.data.files.sums import write_sums
from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import read_wav, write_wav
from difftalk_pl.media.video import FrameReader
from difftalk_pl.media.writer import write_video

FORMAT = 1
SUMS = "SHA256SUMS"  # in a clip's folder, of its files but clip.json
SAMPLES_PER_FRAME = RATE // FPS
PREPARED_CRF = 5  # H.264 quality of video.mp4: at least 42 dB in every frame of the real clips
VERSIONED = ("numpy", "av", "dlib-bin", "python_speech_features", "scikit-image")


class ClipRow(NamedTuple):
    """A line of clips.csv. Refused clips have a line, too: `status` is "ok" or "refused", `reason` says why."""

    name: str
    identity: str
    frames: int
    source: str
    status: str
    reason: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """dataset.json: what all clips of a dataset share."""

    size: int
    fps: int = FPS
    rate: int = RATE
    landmarks: str = "iBUG 68 points, fractions of the frame's side"
    format: int = FORMAT


@dataclass(frozen=True)
class Clip:
    """One prepared clip. Nothing is read before it is asked for; arrays are memory-mapped."""

    root: Path
    name: str
    frames: int
    identity: str = ""

    @property
    def folder(self) -> Path:
        return self.root / "clips" / self.name

    @property
    def pool(self) -> int:
        """How many frames references are drawn from."""
        return self.frames

    def source_frame(self, frame: int) -> int:
        """Where in the pool a frame lies."""
        return frame

    def moment(self, frame: int) -> float:
        """When a frame is shown, in frames of 1/25 s of the sound."""
        return frame

    @property
    def pool_landmarks(self) -> np.ndarray:
        """(pool, 68, 2), of the frames that references are drawn from."""
        return self.landmarks

    @property
    def landmarks(self) -> np.ndarray:
        """(T, 68, 2) float32, fractions of the frame's side. Not kept: a mapping holds a file open."""
        path = self.folder / "landmarks.npy"
        array = open_array(path, frames=self.frames, rows_per_frame=1)
        if array.shape[1:] != (68, 2) or array.dtype.kind != "f":
            raise UserError(f"{path}: {array.dtype} {array.shape}, expected 68 points of 2; prepare its clip again")
        return array

    def features_file(self, kind: str) -> Path:
        return self.folder / "features" / f"{kind}.npy"

    def features(self, kind: str) -> np.ndarray:
        """(2T, C) float32, steps of 20 ms."""
        path = self.features_file(kind)
        if not path.exists():
            remedy = self.features_remedy() or f"run prepare with --features {kind}, or add-features"
            raise UserError(f"{path}: no such features; {remedy}")
        array = open_array(path, frames=self.frames, rows_per_frame=2)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise UserError(
                f"{path}: {array.dtype} {array.shape}, expected steps of features; remove it and add it again"
            )
        return array

    def features_remedy(self) -> str:
        """How this clip can have features where the usual way will not do; empty where it will."""
        return self.info().get("features_remedy", "") if (self.folder / "clip.json").exists() else ""

    def audio(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """(T * 640,) int16 at 16 kHz, or the sound of the frames from `first` to before `last`."""
        part = slice(first * SAMPLES_PER_FRAME, None if last is None else last * SAMPLES_PER_FRAME)
        return read_wav(self.folder / "audio.wav", self.frames * SAMPLES_PER_FRAME, RATE, part)

    def reader(self) -> FrameReader:
        """The frames of the pool by number. Raises UserError where the video is not as long as the clip."""
        reader = FrameReader(self.folder / "video.mp4")
        if len(reader) != self.pool:
            reader.close()
            raise UserError(
                f"{reader.path}: {len(reader)} frames, expected {self.pool}; remove its clip and prepare again"
            )
        return reader

    def info(self) -> dict[str, Any]:
        return json.loads((self.folder / "clip.json").read_text(encoding="utf-8"))


def open_array(path: Path, frames: int, rows_per_frame: int) -> np.ndarray:
    """Memory-map a `.npy` and hold its length against the clip's."""
    try:
        array = map_array(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove its clip's folder and run prepare again") from error
    if (rows := array.shape[0] if array.ndim else 0) != frames * rows_per_frame:
        raise UserError(
            f"{path}: {rows} rows for {frames} frames, expected {frames * rows_per_frame}; prepare it again"
        )
    return array


def write_clip(
    root: Path,
    name: str,
    *,
    frames: Iterable[np.ndarray],
    audio: np.ndarray,
    landmarks: np.ndarray,
    features: Sequence[FeatureKind],
    info: dict[str, Any],
    ready: Callable[[], None] = lambda: None,
) -> Path:
    """Write a clip aside and rename it into place, so that it appears whole or not at all.

    Args:
        frames: (S, S, 3) uint8 each, as many as landmarks.
        audio: (T * 640,) int16, 16 kHz mono.
        landmarks: (T, 68, 2), fractions of the side.
        features: the kinds to compute.
        info: becomes clip.json.
        ready: called when all is written; what it raises keeps the place as it is.

    Raises:
        ValueError: lengths disagree or landmarks are not finite.
    """
    target = root / "clips" / name
    aside = target.parent / aside_name(name)
    old = aside.with_suffix(OLD)
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "features").mkdir(parents=True)
    try:
        written = write_video(aside / "video.mp4", frames, fps=FPS, crf=PREPARED_CRF, intra=True)
        _check_lengths(name, written, audio, landmarks)
        write_wav(aside / "audio.wav", audio, RATE)
        np.save(aside / "landmarks.npy", np.ascontiguousarray(landmarks, dtype=np.float32))
        for kind in features:
            np.save(aside / "features" / f"{kind.name}.npy", kind(audio).astype(np.float32))
        write_sums(aside / SUMS, (path for path in aside.rglob("*") if path.is_file()))
        write_json(aside / "clip.json", {"name": name, "frames": written, **info})
        ready()
        remove_latents(root, name)  # of the clip that was here
        if target.exists():
            os.rename(target, old)
        os.rename(aside, target)
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return target


def remove_latents(root: Path, name: str) -> None:
    """Those of one clip, by whatever autoencoder, with their sums."""
    for suffix in (".npy", ".sha256"):
        for cached in (root / "latents").glob(f"*/{glob.escape(name)}{suffix}"):
            if not cached.is_dir():
                cached.unlink(missing_ok=True)


def _check_lengths(name: str, frames: int, audio: np.ndarray, landmarks: np.ndarray) -> None:
    if landmarks.shape != (frames, 68, 2):
        raise ValueError(f"{name}: landmarks {landmarks.shape} for {frames} frames, expected ({frames}, 68, 2)")
    if not np.isfinite(landmarks).all():
        raise ValueError(f"{name}: landmarks are not finite")
    if audio.dtype != np.int16 or audio.shape != (frames * SAMPLES_PER_FRAME,):
        raise ValueError(f"{name}: audio {audio.dtype} {audio.shape}, expected int16 ({frames * SAMPLES_PER_FRAME},)")


def create_dataset(root: Path, size: int) -> DatasetInfo:
    """Make dataset.json, or hold the one that is there against `size`."""
    if (root / "dataset.json").exists():
        there = read_dataset(root)
        if there.size != size:
            raise UserError(f"{root}: holds frames of {there.size} pixels, not {size}; use another --out")
        return there
    (root / "clips").mkdir(parents=True, exist_ok=True)
    info = DatasetInfo(size=size)
    write_json(root / "dataset.json", {**asdict(info), "versions": versions()})
    return info


def read_dataset(root: Path) -> DatasetInfo:
    """Open dataset.json. Raises UserError where there is none or its format is another."""
    path = root / "dataset.json"
    if not path.exists():
        raise UserError(f"{root}: not a prepared dataset (no dataset.json); run prepare or synthesize first")
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("versions", None)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')}, this version reads {FORMAT}; prepare it again")
    return DatasetInfo(**content)


def versions() -> dict[str, str]:
    """Versions of the packages that shape prepared data."""
    return {name: importlib.metadata.version(name) for name in ("difftalk_pl", *VERSIONED)}


def read_rows(root: Path) -> dict[str, ClipRow]:
    """clips.csv by name, in the file's order; empty where there is no file."""
    path = root / "clips.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != ClipRow._fields:
            raise UserError(f"{path}: the columns are not {', '.join(ClipRow._fields)}; save it with commas, unchanged")
        rows = [
            ClipRow(row["name"], row["identity"], int(row["frames"]), row["source"], row["status"], row["reason"])
            for row in reader
        ]
    return {row.name: row for row in rows}


def write_rows(root: Path, rows: Iterable[ClipRow], ready: Callable[[], None] = lambda: None) -> None:
    """Write clips.csv, sorted by name, in one step; what `ready` raises before it keeps the old one."""
    with replacing(root / "clips.csv", ready) as file:
        writer = csv.writer(file)
        writer.writerow(ClipRow._fields)
        writer.writerows(sorted(rows))


def open_clips(root: Path) -> list[Clip]:
    """All usable clips of a dataset, from clips.csv alone: no clip's file is touched."""
    read_dataset(root)
    rows = read_rows(root)
    if not rows:
        raise UserError(f"{root}: clips.csv is missing or empty; run prepare or synthesize first")
    return [Clip(root, row.name, row.frames, row.identity) for row in rows.values() if row.status == "ok"]


def write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
