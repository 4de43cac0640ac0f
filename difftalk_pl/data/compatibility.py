"""Checks that data and model fit each other."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.stored import check_features
from difftalk_pl.errors import UserError

COMPARED = {"latents": ("features", "mask", "size"), "images": ("features", "mask", "size"), "sync": ("sync_crop",)}


def check_audio(root: Path, clips: Sequence[Clip], kind: str, channels: int | None) -> None:
    """Check that all clips have a kind of features, and that it has the channels that the model takes.

    Only the first readable file is opened: a damaged clip costs itself alone, later.

    Raises:
        UserError: names the clips, or the key to change.
    """
    check_features(root, clips, kind)
    for clip in clips:
        with suppress(UserError):
            width = clip.features(kind).shape[1]
            break
    else:
        return
    if channels not in (None, width):
        raise UserError(
            f"data.features {kind} has {width} channels, model.difftalk.conditioning.audio_channels is {channels}: "
            f"set it to {width}"
        )


def refuse_other_data(trained: Mapping[str, Any], here: Mapping[str, Any], contents: str) -> None:
    """Compare the data of a checkpoint's training with those at hand. Features of unknown origin are taken on trust.

    Args:
        trained, here: states of the HDTFDataModule.

    Raises:
        UserError: they differ in something that the model depends on.
    """
    compared = COMPARED.get(contents, ())
    for key in compared:
        if trained[key] != here[key]:
            raise UserError(f"the checkpoint was trained on data with {key} {trained[key]}, not {here[key]}")
    known = {trained["features_sha256"], here["features_sha256"]} - {""}
    if "features" in compared and len(known) > 1:
        raise UserError(
            f"the checkpoint was trained on {here['features']} features of {trained['features_model']}, the data have "
            f"those of {here['features_model']}: add features of that network, or start another --run"
        )
