"""What is wrong with a dataset as a whole: its lists, its folders, and whether its clips agree with each other."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from difftalk_pl.data.checking.clip_faults import (
    ROW_REMEDY,
    Fault,
    cause_of,
    feature_fault,
    foreign,
    latent_fault,
    leftover,
    strangers,
)
from difftalk_pl.data.clips import SUMS, Clip, ClipRow, read_dataset, read_rows
from difftalk_pl.data.files.claims import CLAIM, PROBE, Claims, is_running
from difftalk_pl.data.files.leftovers import ASIDE, aside_name
from difftalk_pl.data.files.sums import read_sums
from difftalk_pl.data.latents.cache import DESCRIPTION, LatentCache, open_cache
from difftalk_pl.data.prepare import CLAIMS
from difftalk_pl.data.quality.table import TABLE, read_quality
from difftalk_pl.data.refusals import REFUSED
from difftalk_pl.data.speech.features import RECORD, read_record
from difftalk_pl.errors import UserError

FILES = {"dataset.json", "clips.csv", "identities.csv", RECORD, TABLE, ".prepare.lock"}
FOLDERS = {"clips", "latents", "splits", "report", CLAIMS, REFUSED}
Shapes = Mapping[Path, tuple[int, ...]]  # of features and latents, by file


def open_lists(root: Path) -> tuple[int | None, dict[str, ClipRow], list[Fault]]:
    """The frames' size, the rows of clips.csv, and what is wrong with the files that say so.

    Raises:
        UserError: no dataset at all.
    """
    if not (root / "dataset.json").exists() and not (root / "clips").is_dir():
        read_dataset(root)
    faults: list[Fault] = []
    info = _read(root / "dataset.json", lambda: read_dataset(root), "restore it from a copy", faults)
    remedy = "restore it from a copy; or remove it and run prepare again, which enters the clips that are there"
    rows = _read(root / "clips.csv", lambda: _rows(root), remedy, faults)
    _read(root / RECORD, lambda: read_record(root), "restore it from a copy", faults)
    _read(root / TABLE, lambda: read_quality(root), f"remove it and run report {root}", faults)
    return None if info is None else info.size, rows or {}, faults


def _read(path: Path, read: Callable[[], Any], remedy: str, faults: list[Fault]) -> Any:
    try:
        return read()
    except (UserError, OSError, ValueError, TypeError, AttributeError) as error:
        faults.append(Fault("damaged", path, cause_of(error, path), remedy))
    return None


def _rows(root: Path) -> dict[str, ClipRow]:
    if not (rows := read_rows(root)):
        raise ValueError("missing or empty")
    return rows


def misfits(root: Path, shapes: Shapes, clips: Mapping[str, Clip]) -> Iterator[Fault]:
    """Features of a kind and latents of a folder that are shaped otherwise than those of most clips."""
    try:
        recorded = {f"{kind}.npy": (model.channels,) for kind, model in read_record(root).items()}
    except UserError:
        recorded = {}
    groups = defaultdict[str, dict[Path, tuple[int, ...]]](dict)
    for path, shape in shapes.items():
        groups[path.name if _is_features(path) else str(path.parent)][path] = shape
    for key, group in groups.items():
        counts = Counter(group.values()).most_common()
        undecided = key not in recorded and len(counts) > 1 and counts[0][1] == counts[1][1]
        most = recorded.get(key, counts[0][0])
        for path, shape in group.items():
            if shape != most:
                why = f"{_shape(shape)} numbers, and {_shape(most)} {'as often' if undecided else 'in most clips'}"
                fault = _misfit(path, why, clips)
                yield fault._replace(mend="") if undecided else fault


def _misfit(path: Path, why: str, clips: Mapping[str, Clip]) -> Fault:
    if _is_features(path):
        return feature_fault(clips[path.parent.parent.name], path, why, "mismatched")
    return latent_fault(path, why, "mismatched")


def _is_features(path: Path) -> bool:
    return path.parent.name == "features"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def lacking(root: Path, shapes: Shapes, caches: Collection[LatentCache], clips: Collection[str]) -> Iterator[Fault]:
    """Kinds of features and latents that only some clips have: nothing is wrong, and whoever trains on them is told."""
    kinds = Counter(path.name for path in shapes if _is_features(path))
    for name, number in sorted(kinds.items()):
        if number < len(clips):
            why = f"{len(clips) - number} of {len(clips)} clips have none, or none that can be used"
            remedy = f"run add-features --features {name.removesuffix('.npy')}"
            yield Fault("missing", root / "clips" / "*" / "features" / name, why, remedy, harmless=True)
    for cache in caches:
        number = sum(path.parent == cache.folder for path in shapes)
        if number < len(clips):
            why = f"{len(clips) - number} of {len(clips)} clips have none, or none that can be used"
            yield Fault("missing", cache.folder, why, "run cache-latents", harmless=True)


def unsummed(clips: Collection[Clip]) -> Iterator[Fault]:
    """Clips of older versions."""
    without = [clip for clip in clips if clip.folder.is_dir() and "video.mp4" not in read_sums(clip.folder / SUMS)]
    if without:
        why = f"{len(without)} of {len(clips)} clips have none, so their content cannot be compared"
        remedy = "nothing; clips that are prepared now have it"
        yield Fault("missing", without[0].root / "clips" / "*" / SUMS, why, remedy, harmless=True)


def folder_faults(root: Path, rows: Mapping[str, ClipRow], busy: Collection[str]) -> Iterator[Fault]:
    """Outside of the clips' folders: clips without a row, latents without a clip, leftovers, files of others.

    Args:
        busy: names of clips that are being made.
    """
    yield from strangers(root, lambda name: name in FILES | FOLDERS)
    clips = {path.name: path for path in _entries(root / "clips")}
    for path in clips.values():
        yield from _clip_fault(path, rows, busy)
    usable = {row.name for row in rows.values() if row.status == "ok"}
    for folder in _entries(root / "latents"):
        cache = open_cache(folder)
        if cache is None or not folder.is_dir():
            yield foreign(folder)
        elif not cache.is_described():
            why = "missing, or it does not say what the folder's name says"
            remedy = f"if the latents are of autoencoder {cache.codec}, run cache-latents with it, which writes it anew"
            yield Fault("mismatched", folder / DESCRIPTION, why, remedy)
        else:
            yield from _cache_faults(folder, rows, usable.union(clips))
    for folder in (root / "report", root / "report" / "thumbs"):
        yield from strangers(folder, lambda name: name in ("index.html", "thumbs") or name.endswith(".jpg"))
    for folder in claim_folders(root):
        yield from _claim_faults(folder)


def _cache_faults(folder: Path, rows: Mapping[str, ClipRow], clips: Collection[str]) -> Iterator[Fault]:
    yield from strangers(folder, lambda name: name in (DESCRIPTION, CLAIMS) or name.endswith((".npy", ".sha256")))
    for path in sorted(folder.glob("[!.]*.npy")):
        if path.stem not in clips and path.stem in rows:
            yield Fault("orphan", path, "its clip is refused", "prepare removes it with its next try", harmless=True)
        elif path.stem not in clips:
            yield Fault("orphan", path, "there is no clip of this name", "remove it")


def claim_folders(root: Path) -> list[Path]:
    return [folder for folder in (root / CLAIMS, *sorted((root / "latents").glob(f"*/{CLAIMS}"))) if folder.is_dir()]


def _entries(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(folder)) if folder.is_dir() else []


def _clip_fault(path: Path, rows: Mapping[str, ClipRow], busy: Collection[str]) -> Iterator[Fault]:
    """Of an entry of ROOT/clips."""
    row = rows.get(path.name)
    if (found := ASIDE.fullmatch(path.name)) is not None:
        here = found["host"] == ASIDE.fullmatch(aside_name("x"))["host"]  # type: ignore[index]
        dead = None if not here else not is_running(int(found["process"]))
        yield leftover(path, False if found["name"] in busy else dead)
    elif row is not None and row.status == "ok":
        return
    elif path.name.startswith(".") or not path.is_dir():
        yield foreign(path)
    elif row is None and path.name not in busy:
        yield Fault("mismatched", path, "clips.csv has no row of it", ROW_REMEDY, clip=path.name)
    elif row is not None:
        why = f"clips.csv calls it refused: {row.reason}"
        yield Fault("foreign", path, why, "remove it; nothing reads it", clip=path.name, harmless=True)


def _claim_faults(folder: Path) -> Iterator[Fault]:
    claims = Claims(folder)
    yield from strangers(folder, lambda name: CLAIM.fullmatch(name) is not None or PROBE.fullmatch(name) is not None)
    for name in claims.dead():
        why = f"the command that worked on {name} is gone"
        yield Fault("dead claim", folder, why, "remove it; the next command takes it over, too", "remove", name)
