"""Kinds of speech features by name: opening them, with the models that learned kinds need, and what made them.

A dataset holds one file a kind and clip, so one model must make a kind for all clips; ROOT/features.json says which.
"""

import json
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from difftalk_pl.data.audio import FEATURES, FeatureKind
from difftalk_pl.data.clips import SUMS, Clip, write_json
from difftalk_pl.data.files.sums import add_sum
from difftalk_pl.errors import UserError

LEARNED = {  # kind -> the module whose `open_kind` makes it
    "deepspeech": "difftalk_pl.data.features.deepspeech",
    "wav2vec2": "difftalk_pl.data.features.huggingface",
    "hubert": "difftalk_pl.data.features.huggingface",
}
OPTIONS = {"deepspeech": "deepspeech", "wav2vec2": "speech_model", "hubert": "speech_model"}  # of SpeechModels
BATCHED = ("deepspeech",)  # kinds that hear several sounds in one pass
RECORD = "features.json"
SHOWN = 12  # hexadecimal digits of a hash in messages
NAMED = 12  # clips in messages


@runtime_checkable
class Batched(Protocol):
    """A kind that hears several sounds in one pass, for less than one after the other."""

    def batch(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(N,) int16 at 16 kHz each -> (2T, C) float32 each, as if each were alone."""
        ...


@dataclass(frozen=True)
class FeatureModel:
    """What made learned features. Equal hashes make equal features; the name is for people.

    Args:
        name: of the file or model, with the layer where there is a choice.
        sha256: of the file, or of tensors, layer and scaling of the input.
        channels: numbers a step.
    """

    name: str = field(compare=False)
    sha256: str
    channels: int

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:SHOWN]}…)"


@dataclass(frozen=True)
class SpeechModels:
    """Where learned kinds find their networks.

    Args:
        deepspeech: frozen graph of DeepSpeech 0.1.0.
        speech_model: folder or hub name of a wav2vec 2.0 or HuBERT.
        speech_layer: whose output is taken, 0 for what enters the first; the last by default.
        device: cpu, cuda, or auto.
        threads: of each process, where several share the machine; all cores by default.
    """

    deepspeech: Path | None = None
    speech_model: str | None = None
    speech_layer: int | None = None
    device: str = "auto"
    threads: int | None = None


def shared_threads(workers: int) -> int:
    """Threads for each of several processes that compute side by side."""
    return max(1, (os.cpu_count() or 1) // max(1, workers))


def known_kinds() -> list[str]:
    return [*FEATURES, *LEARNED]


def check_kinds(features: Sequence[str] | str) -> tuple[str, ...]:
    """What --features was given, as a tuple. Raises UserError for a kind that there is not."""
    kinds = (features,) if isinstance(features, str) else tuple(features)
    if unknown := [kind for kind in kinds if kind not in known_kinds()]:
        raise UserError(f"--features {unknown[0]}: no such kind; there are {', '.join(known_kinds())}")
    return kinds


def open_features(kind: str, models: SpeechModels = SpeechModels()) -> FeatureKind:
    """A kind ready for use. A network is loaded once a process, however many clips follow."""
    return FEATURES[kind]() if kind in FEATURES else _open_learned(kind, models)


@lru_cache
def _open_learned(kind: str, models: SpeechModels) -> FeatureKind:
    if models.threads is not None:
        import torch

        torch.set_num_threads(models.threads)
    return import_module(LEARNED[kind]).open_kind(kind, models)


def check_models(kinds: Sequence[str], models: SpeechModels) -> dict[str, FeatureModel]:
    """Load the model of every learned kind once, hash it and let it go. Raises UserError where one cannot be used."""
    return {kind: import_module(LEARNED[kind]).open_kind(kind, models).model for kind in kinds if kind in LEARNED}


def read_record(root: Path) -> dict[str, FeatureModel]:
    """Which models made the learned features of a dataset; kinds of unknown origin are not in it."""
    path = root / RECORD
    if not path.exists():
        return {}
    try:
        return {kind: FeatureModel(**entry) for kind, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable ({error}); restore it from a copy of the dataset") from error


def record_models(root: Path, models: dict[str, FeatureModel]) -> None:
    """Note what made the kinds, before the first file is written. One dataset must not hold steps of two models.

    Raises:
        UserError: clips have features of such a kind that another model made, or nobody knows which.
    """
    record = read_record(root)
    for kind, model in models.items():
        if record.get(kind) != model and any((root / "clips").glob(f"*/features/{kind}.npy")):
            made_by = f"made with {record[kind]}" if kind in record else "of unknown origin"
            raise UserError(
                f"{root}: its clips have {kind} features {made_by}, which must not be mixed with those of {model}; "
                f"give the model that made them, or remove clips/*/features/{kind}.npy to make them anew"
            )
    if changed := {kind: model for kind, model in models.items() if record.get(kind) != model}:
        write_json(root / RECORD, {kind: asdict(model) for kind, model in sorted({**record, **changed}.items())})


def lacking(clips: Iterable[Clip], kind: str) -> list[Clip]:
    """The clips without a file of a kind; none is opened."""
    return [clip for clip in clips if not clip.features_file(kind).exists()]


def check_features(root: Path, clips: Sequence[Clip], kind: str) -> None:
    """Name the clips without a kind before work starts, with what helps each of them. Opens no array.

    Raises:
        UserError: some clips have no such features.
    """
    if not (missing := lacking(clips, kind)):
        return
    option = f" --{OPTIONS[kind].replace('_', '-')} …" if kind in OPTIONS else ""
    usual = f"run add-features --data {root} --features {kind}{option}"
    named = defaultdict[str, list[str]](list)
    for clip in missing:
        named[clip.features_remedy() or usual].append(clip.name)
    told = "; ".join(f"{_some(names)}: {remedy}" for remedy, names in named.items())
    raise UserError(f"{root}: {len(missing)} of {len(clips)} clips have no {kind} features; {told}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def add_missing(
    clips: Sequence[Clip], kinds: Sequence[str], models: SpeechModels, ready: Callable[[], None] = lambda: None
) -> int:
    """Compute the kinds that prepared clips lack from their sounds; each file appears whole. Says how many.

    A kind that can hears all of them in one pass, so they should be few and of like lengths.

    Args:
        ready: called before each file gets its name; what it raises stops that.
    """
    number = 0
    for kind in kinds:
        if not (missing := lacking(clips, kind)):
            continue
        features, sounds = open_features(kind, models), (clip.audio() for clip in missing)
        made = features.batch(list(sounds)) if isinstance(features, Batched) else map(features, sounds)
        for clip, steps in zip(missing, made, strict=True):
            _save(clip, kind, steps, ready)
        number += len(missing)
    return number


def _save(clip: Clip, kind: str, steps: np.ndarray, ready: Callable[[], None]) -> None:
    path = clip.features_file(kind)
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{kind}.{secrets.token_hex(8)}.tmp")
    try:
        with aside.open("wb") as file:
            np.save(file, steps.astype(np.float32))
        ready()
        add_sum(clip.folder / SUMS, f"features/{path.name}", aside)  # first: an old sum must not meet a new file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
