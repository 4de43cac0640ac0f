"""The prepared dataset: write, index, open and verify clips.

ROOT/clips/NAME/ holds a clip and appears by one rename; ROOT/refused/NAME.json says why there is none. ROOT/clips.csv
is an index written from these. ARCHITECTURE.md lists the files.
"""

import glob
import importlib.metadata
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difftalk_pl.data.features.kinds import FeatureKind
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash, read_csv, read_json, write_csv, write_json
from difftalk_pl.media.audio import read_wav, write_wav
from difftalk_pl.media.video import FrameReader
from difftalk_pl.media.writer import write_video

FORMAT = 2
SAMPLES_PER_FRAME = RATE // FPS
PREPARED_CRF = 5  # H.264 quality of video.mp4: at least 42 dB in every frame of the real clips
LANDMARKS = "iBUG 68 points, fractions of the frame's side"
VERSIONED = ("difftalk_pl", "numpy", "av", "dlib-bin", "python_speech_features", "scikit-image")
INDEX = ("name", "identity", "frames", "source", "status", "reason")  # columns of clips.csv; status: ok or refused


class DatasetInfo(NamedTuple):
    """What all clips of a dataset share; the side of its frames in pixels."""

    size: int


@dataclass(frozen=True)
class Clip:
    """One prepared clip. Files are read when they are asked for; arrays are memory-mapped."""

    root: Path
    name: str
    frames: int
    identity: str = ""

    @property
    def folder(self) -> Path:
        return self.root / "clips" / self.name

    @property
    def landmarks(self) -> np.ndarray:
        """Map the landmarks, (T, 68, 2) float32, fractions of the frame's side."""
        return _open_array(self.folder / "landmarks.npy", (self.frames, 68, 2))

    def features_file(self, kind: str) -> Path:
        return self.folder / "features" / f"{kind}.npy"

    def features(self, kind: str) -> np.ndarray:
        """Map a kind of speech features, (2T, C) float32, steps of 20 ms."""
        path = self.features_file(kind)
        if not path.exists():
            raise UserError(f"{path}: no such features; run prepare with --features {kind}, or add-features")
        return _open_array(path, (2 * self.frames, None))

    def audio(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Read the samples of the frames from `first` to before `last`, (640 n,) int16 at 16 kHz."""
        part = slice(first * SAMPLES_PER_FRAME, None if last is None else last * SAMPLES_PER_FRAME)
        return read_wav(self.folder / "audio.wav", self.frames * SAMPLES_PER_FRAME, RATE, part)

    def reader(self) -> FrameReader:
        """Open the video's frames by number. Raises UserError if there are not as many as the clip has."""
        reader = FrameReader(self.folder / "video.mp4")
        if len(reader) != self.frames:
            reader.close()
            raise UserError(
                f"{reader.path}: {len(reader)} frames, expected {self.frames}; remove its folder and prepare again"
            )
        return reader

    def info(self) -> dict[str, Any]:
        """Read clip.json."""
        return json.loads((self.folder / "clip.json").read_text(encoding="utf-8"))


def _open_array(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """Map a .npy of floats of this shape; None is any number."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove its folder and prepare again") from error
    fits = array.ndim == len(shape) and all(n in (None, size) for n, size in zip(shape, array.shape, strict=True))
    if array.dtype.kind != "f" or not fits:
        raise UserError(
            f"{path}: {array.dtype} {array.shape}, expected floats {shape}; remove its folder and prepare again"
        )
    return array


def verify(clip: Clip) -> None:
    """Check the lengths of a clip's files and their SHA-256. Raises UserError or OSError naming the file."""
    _ = clip.landmarks, clip.audio(), [clip.features(path.stem) for path in clip.folder.glob("features/*.npy")]
    clip.reader().close()
    for name, digest in clip.info()["sha256"].items():
        if file_hash(clip.folder / name) != digest:
            raise UserError(
                f"{clip.folder / name}: differs from what was written (SHA-256); remove its folder and prepare again"
            )


def write_clip(
    root: Path,
    name: str,
    *,
    frames: Iterable[np.ndarray],
    audio: np.ndarray,
    landmarks: np.ndarray,
    features: Sequence[FeatureKind],
    info: dict[str, Any],
    identity: str = "",
) -> Path:
    """Write a clip to a temporary folder and rename it, so that it appears whole or not at all.

    Args:
        frames: (S, S, 3) uint8 each, as many as landmarks.
        audio: (T * 640,) int16, 16 kHz mono.
        landmarks: (T, 68, 2), fractions of the side.
        info: for clip.json; its `source` is a text or holds a `path`.
        identity: of the person; the clip's name by default.
    """
    target = root / "clips" / name
    for leftover in target.parent.glob(f".{glob.escape(name)}.*.tmp"):  # of a killed process
        if leftover.name.rsplit(".", 2)[0] == f".{name}":
            shutil.rmtree(leftover, ignore_errors=True)
    temporary, replaced = (target.with_name(f".{name}.{secrets.token_hex(8)}.tmp") for _ in range(2))
    (temporary / "features").mkdir(parents=True)
    try:
        written = write_video(temporary / "video.mp4", frames, fps=FPS, crf=PREPARED_CRF, intra=True)
        if landmarks.shape != (written, 68, 2) or audio.shape != (written * SAMPLES_PER_FRAME,):
            raise ValueError(f"{name}: {written} frames, landmarks {landmarks.shape}, audio {audio.shape}")
        write_wav(temporary / "audio.wav", audio, RATE)
        np.save(temporary / "landmarks.npy", np.ascontiguousarray(landmarks, dtype=np.float32))
        for kind in features:
            np.save(temporary / "features" / f"{kind.name}.npy", kind(audio).astype(np.float32))
        info = {**info, "name": name, "identity": identity or name, "frames": written}
        record_files(temporary, info, [path for path in temporary.rglob("*") if path.is_file()])
        for latents in (root / "latents").glob(f"*/{glob.escape(name)}.npy"):  # of the clip that was here
            latents.unlink()
        if target.exists():
            os.rename(target, replaced)
        os.rename(temporary, target)
    finally:
        for folder in (temporary, replaced):
            shutil.rmtree(folder, ignore_errors=True)
    return target


def record_files(folder: Path, info: dict[str, Any], files: Iterable[Path]) -> None:
    """Write a clip's clip.json with the SHA-256 of its new files added."""
    sums = {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files)}
    write_json(folder / "clip.json", {**info, "sha256": {**info.get("sha256", {}), **sums}})


def create_dataset(root: Path, size: int) -> DatasetInfo:
    """Write dataset.json, or check that the one that is there has this size."""
    if not (root / "dataset.json").exists():
        (root / "clips").mkdir(parents=True, exist_ok=True)
        common = {"format": FORMAT, "size": size, "fps": FPS, "rate": RATE, "landmarks": LANDMARKS}
        versions = {name: importlib.metadata.version(name) for name in VERSIONED}
        write_json(root / "dataset.json", {**common, "versions": versions})
    if (there := read_dataset(root)).size != size:
        raise UserError(f"{root}: holds frames of {there.size} pixels, not {size}; use another --out")
    return there


def read_dataset(root: Path) -> DatasetInfo:
    """Read dataset.json. Raises UserError if there is none or its format is another."""
    path = root / "dataset.json"
    if not path.exists():
        raise UserError(f"{root}: not a prepared dataset (no dataset.json); run prepare or synthesize first")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] != FORMAT:
        raise UserError(f"{path}: format {content['format']}, this version reads {FORMAT}; prepare it again")
    return DatasetInfo(content["size"])


def open_clips(root: Path) -> list[Clip]:
    """Open all usable clips of a dataset from clips.csv alone; no clip's file is read."""
    read_dataset(root)
    rows = read_index(root)
    if not rows:
        raise UserError(f"{root}: clips.csv is missing or empty; run prepare or synthesize first")
    usable = [row for row in rows if row["status"] == "ok"]
    return [Clip(root, row["name"], int(row["frames"]), row["identity"]) for row in usable]


def read_index(root: Path) -> list[dict[str, str]]:
    """Read clips.csv, sorted by name; empty if there is no file."""
    return read_csv(root / "clips.csv")


def write_index(root: Path) -> None:
    """Write clips.csv from the clips and refusals that are there, sorted by name.

    It is written again until nothing has changed meanwhile, so that no command loses the clips of another.
    """
    written = None
    while (rows := _list_clips(root)) != written:
        write_csv(root / "clips.csv", INDEX, rows)
        written = rows


def _list_clips(root: Path) -> list[tuple[str | int, ...]]:
    """List the clips and the refused ones; a refusal counts more than a clip that an earlier run made."""
    paths = [*(root / "clips").glob("[!.]*/clip.json"), *(root / "refused").glob("[!.]*.json")]
    rows = {}
    for info in filter(None, map(read_json, paths)):  # empty: removed meanwhile, or damaged
        source, reason = info["source"], info.get("reason", "")
        source = source if isinstance(source, str) else source["path"]
        status = "refused" if reason else "ok"
        rows[info["name"]] = (info["name"], info["identity"], info.get("frames", 0), source, status, reason)
    return sorted(rows.values())
