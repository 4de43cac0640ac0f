"""The speech features that a model was trained with, made by the same network as then."""

import logging
from pathlib import Path

from difftalk_pl.data.features.kinds import OPTIONS, SHOWN, FeatureKind, SpeechModels, open_features
from difftalk_pl.errors import UserError
from difftalk_pl.training.contract import DataContract

log = logging.getLogger(__name__)


def speech_of_training(
    checkpoint: Path | None, contract: DataContract, models: SpeechModels, channels: int
) -> FeatureKind:
    """Open the kind that a model takes.

    Args:
        checkpoint: where its weights were read, for messages.
        channels: numbers a step that it takes.

    Raises:
        UserError: what made the features is missing, or another one than in training.
    """
    kind = contract.features
    made_with = f"{kind} features" + (f" of {contract.features_model}" if contract.features_model else "")
    if contract.features_sha256:
        made_with += f" (sha256 {contract.features_sha256[:SHOWN]}…)"
    if kind in OPTIONS and getattr(models, OPTIONS[kind]) is None:
        option = OPTIONS[kind].replace("_", "-")
        raise UserError(f"{checkpoint}: was trained with {made_with}; give what made them by --{option}")
    features = open_features(kind, models)
    if (model := getattr(features, "model", None)) is None:
        if features.channels != channels:
            raise UserError(
                f"{checkpoint}: takes features of {channels} channels and says that they are {kind}, which has "
                f"{features.channels}: import it again with the --features that it was trained with"
            )
        return features
    if not contract.knows(model.sha256) or features.channels != channels:
        raise UserError(
            f"{checkpoint}: was trained with {made_with} in {channels} channels; given is {model} "
            f"with {features.channels}: give the one of the training"
        )
    if not contract.features_sha256:
        log.warning("%s: does not say which model made its %s features; %s is taken on trust", checkpoint, kind, model)
    return features
