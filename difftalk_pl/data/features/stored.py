"""The command `add-features`, and the features that a prepared dataset holds.

A dataset has one file for each clip and kind, so one network must make a kind for all clips; ROOT/features.json names
it.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip, open_clips, write_sums
from difftalk_pl.data.features.kinds import OPTIONS, FeatureModel, SpeechModels, check_kinds, open_features
from difftalk_pl.errors import UserError
from difftalk_pl.files import write_json
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

RECORD = "features.json"
NAMED = 12  # clips in messages


def add_features(
    data: Path,
    features: list[str] | str,
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
) -> None:
    """Compute kinds of speech features for every clip of a prepared dataset that lacks them, from the clip's own audio.

    Clips that have them are skipped, so that an interrupted run continues where it stopped.

    Args:
        data: the prepared dataset, of prepare or synthesize.
        features: mfcc, deepspeech, wav2vec2, hubert; several as [a,b].
        deepspeech: the frozen graph of DeepSpeech 0.1.0, output_graph.pb, for deepspeech.
        speech_model: folder or hub name of the network for wav2vec2 or hubert.
        speech_layer: layer of that network whose output is taken; the last by default.
    """
    kinds, models = check_kinds(features), SpeechModels(deepspeech, speech_model, speech_layer)
    clips = open_clips(data)
    record_models(data, {kind: model for kind in kinds if (model := open_features(kind, models).model)})
    failures: dict[str, str] = {}
    with progress_bar() as bar:
        for clip in bar.track(clips, description="clips"):
            try:
                add_missing([clip], kinds, models)
            except (UserError, OSError, ValueError) as error:
                failures[clip.name] = str(error)
    for name, reason in failures.items():
        log.warning("%s: no %s: %s", name, " or ".join(kinds), reason)
    if failures:
        raise UserError(f"{data}: {len(failures)} of {len(clips)} clips failed ({_list(failures)})")
    log.info("%s: %d clips have %s", data, len(clips), ", ".join(kinds))


def add_missing(clips: Sequence[Clip], kinds: Sequence[str], models: SpeechModels) -> None:
    """Compute the kinds that prepared clips lack from their audio; each file appears whole."""
    for clip in clips:
        for kind in kinds:
            path = clip.features_file(kind)
            if path.exists():
                continue
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.save(file, open_features(kind, models)(clip.audio()).astype(np.float32))
            temporary.replace(path)
            write_sums(clip.folder, [path])


def check_features(root: Path, clips: Sequence[Clip], kind: str) -> None:
    """Check that every clip has a kind of features; opens no array.

    Raises:
        UserError: some have not; names them and the command that adds them.
    """
    if missing := [clip.name for clip in clips if not clip.features_file(kind).exists()]:
        option = f" --{OPTIONS[kind].replace('_', '-')} …" if kind in OPTIONS else ""
        raise UserError(
            f"{root}: {len(missing)} of {len(clips)} clips have no {kind} features ({_list(missing)}); "
            f"run add-features --data {root} --features {kind}{option}"
        )


def read_record(root: Path) -> dict[str, FeatureModel]:
    """Return the network that made each learned kind of a dataset; kinds of unknown origin are left out."""
    path = root / RECORD
    if not path.exists():
        return {}
    return {kind: FeatureModel(**entry) for kind, entry in json.loads(path.read_text(encoding="utf-8")).items()}


def record_models(root: Path, models: dict[str, FeatureModel]) -> None:
    """Write down the network of each learned kind, before its first file is written.

    Raises:
        UserError: clips have features of such a kind by another network, or one that nobody knows.
    """
    record = read_record(root)
    for kind, model in models.items():
        if record.get(kind) != model and any((root / "clips").glob(f"*/features/{kind}.npy")):
            origin = f"made with {record[kind]}" if kind in record else "of unknown origin"
            raise UserError(
                f"{root}: its clips have {kind} features {origin}, which must not be mixed with those of {model}; "
                f"give the network that made them, or remove clips/*/features/{kind}.npy to compute them anew"
            )
    if record | models != record:
        write_json(root / RECORD, {kind: asdict(model) for kind, model in sorted((record | models).items())})


def _list(names: Sequence[str] | dict[str, str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join([*names][:NAMED]) + more
