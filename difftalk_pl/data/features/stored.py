"""The command `add-features`, and the features that a prepared dataset holds.

One network must make a kind for all clips of a dataset; ROOT/features.json names it.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip, open_clips, record_files
from difftalk_pl.data.features.kinds import FeatureModel, Kind, SpeechModels, open_features
from difftalk_pl.errors import UserError
from difftalk_pl.files import replacing, write_json
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

RECORD = "features.json"


def add_features(
    data: Path,
    features: list[Kind],
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
) -> None:
    """Compute kinds of speech features for every clip of a prepared dataset that lacks them, from the clip's own audio.

    Clips that have them are skipped, so that an interrupted run continues where it stopped.

    Args:
        data: the prepared dataset, of prepare or synthesize.
        features: mfcc, deepspeech, wav2vec2, hubert.
        deepspeech: the frozen graph of DeepSpeech 0.1.0, output_graph.pb, for deepspeech.
        speech_model: folder or hub name of the network for wav2vec2 or hubert.
        speech_layer: layer of that network whose output is taken; the last by default.
    """
    models = SpeechModels(deepspeech, speech_model, speech_layer)
    clips, failed = open_clips(data), 0
    record_models(data, features, models)
    with progress_bar() as bar:
        for clip in bar.track(clips, description="clips"):
            try:
                add_missing(clip, features, models)
            except (UserError, OSError) as error:
                log.warning("%s: no %s: %s", clip.name, " or ".join(features), error)
                failed += 1
    if failed:
        raise UserError(f"{data}: {failed} of {len(clips)} clips failed, as logged above")


def add_missing(clip: Clip, kinds: Sequence[str], models: SpeechModels) -> None:
    """Compute the kinds that a prepared clip lacks from its audio; each file appears whole."""
    for kind in kinds:
        if not (path := clip.features_file(kind)).exists():
            steps = open_features(kind, models)(clip.audio())
            path.parent.mkdir(exist_ok=True)
            with replacing(path, "wb") as file:
                np.save(file, steps)
            record_files(clip.folder, clip.info(), [path])


def check_features(root: Path, clips: Sequence[Clip], kind: str) -> None:
    """Check that every clip has a kind of features, without opening them. Raises UserError naming those without."""
    if missing := [clip.name for clip in clips if not clip.features_file(kind).exists()]:
        raise UserError(
            f"{root}: {len(missing)} of {len(clips)} clips have no {kind} features ({missing[0]}, …); "
            f"run add-features --data {root} --features {kind}"
        )


def read_record(root: Path) -> dict[str, FeatureModel]:
    """Return the network that made each learned kind of a dataset; kinds of unknown origin are left out."""
    if not (root / RECORD).exists():
        return {}
    record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    return {kind: FeatureModel(entry["name"], entry["sha256"]) for kind, entry in record.items()}


def record_models(root: Path, kinds: Sequence[str], models: SpeechModels) -> None:
    """Write down the network of each learned kind, before its first file is written.

    Raises:
        UserError: a network is missing, or clips have features of such a kind by another or an unknown one.
    """
    record = read_record(root)
    for kind in kinds:
        model = open_features(kind, models).model
        if model is None or record.get(kind) == model:
            continue
        if any((root / "clips").glob(f"*/features/{kind}.npy")):
            raise UserError(
                f"{root}: its clips have {kind} features of {record.get(kind, 'unknown origin')}, which must not be "
                f"mixed with those of {model}; give that network, or remove clips/*/features/{kind}.npy"
            )
        record[kind] = model
        write_json(root / RECORD, {kind: asdict(model) for kind, model in sorted(record.items())})
