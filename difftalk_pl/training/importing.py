"""The command `import-checkpoint`: checkpoints of the published code, and our own, to folders and back."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftalk_pl.data.features.kinds import check_kinds
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.training import published
from difftalk_pl.training.released import Unsaid, from_published, say_parts
from difftalk_pl.training.safe_unpickling import read_file
from difftalk_pl.training.state_dicts import tensors
from difftalk_pl.training.strict import refuse_not_finite
from difftalk_pl.training.targets import (
    CHECKPOINT,
    is_model_folder,
    refuse_foreign_checkpoint,
    refuse_foreign_folder,
)
from difftalk_pl.training.weights import ENTRY, MODEL_FILE, STAGES, Stage, Weights, read_weights, write_checkpoint

log = logging.getLogger(__name__)


def import_checkpoint(
    file: Path,
    out: Path,
    expect: Stage | None = None,
    raw: bool = False,
    half: bool = False,
    head_width: int = published.HEAD_WIDTH,
    features: str = "deepspeech",
    mask: MaskName = "below_nose",
    size: int | None = None,
    autoencoder: Path | None = None,
) -> None:
    """Turn a checkpoint into a folder that every command takes, or a folder back into one checkpoint.

    FILE is a first stage of latent diffusion or taming, a stage 2 checkpoint of the released code, a checkpoint of this
    program or a folder made by export. Sizes are read off the tensors; nothing in the file is run.

    Args:
        file: what to read.
        out: the folder to write, or one file where the name ends in .ckpt.
        expect: refuse anything but an autoencoder, a diffusion model, or a SyncNet.
        raw: take the weights of the last step in place of their moving average.
        half: store 16 bit floats, in a folder.
        head_width: channels of an attention head of a published denoiser; the file does not say it.
        features: kind of features that published speech encoders were trained on; the file does not say it.
        mask: what was hidden while a published denoiser was trained; the file does not say it.
        size: side of the frames of a published denoiser, 64, 128, 256 or 512; by default 64 times the factor of its
            first stage.
        autoencoder: first stage of a published denoiser whose file holds none.
    """
    check_kinds(features)
    unsaid = Unsaid(head_width, features, mask, size, raw, autoencoder)
    as_checkpoint = out.suffix.lower() == CHECKPOINT
    if not file.exists():
        raise UserError(f"{file}: no such file or folder")
    if as_checkpoint:
        refuse_foreign_checkpoint(out, file, ENTRY)
    else:
        refuse_foreign_folder(out)
    weights = open_weights(file, unsaid)
    if expect is not None and weights.stage != expect:
        raise UserError(f"{file}: this is {STAGES[weights.stage]}, and {STAGES[expect]} was expected")
    if as_checkpoint:
        write_checkpoint(weights, out)
        log.info("%s: for inference and init_from; it holds no optimizer, so fit cannot go on from it", out)
    else:
        weights.save_pretrained(out, half)
    log.info("%s: %s, hash of its tensors %s", out, STAGES[weights.stage], weights.hash)


def open_weights(file: Path, unsaid: Unsaid = Unsaid()) -> Weights:
    """Weights from whatever `import-checkpoint` takes. Raises UserError that says what was found instead."""
    if file.is_dir():
        _refuse_diffusers_folder(file)
        return _ours(file, {}, unsaid.raw)
    if file.name == MODEL_FILE and is_model_folder(file.parent):
        raise UserError(f"{file}: is a part of a folder made by export: give the folder {file.parent}")
    content = read_file(file)
    if isinstance(content, Mapping) and ENTRY in content:
        return _ours(file, content, unsaid.raw)
    progress = _progress(content)
    log.info("%s: %s", file, progress or "no count of epochs or steps")
    try:
        weights = from_published(tensors(content), unsaid, open_weights)
        weights.path = file
        _check(weights, file)
    except (UserError, ValueError) as error:
        message = str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: {message}") from error
    weights.origin = ", ".join(filter(None, [file.name, weights.origin, progress]))
    return weights


def _ours(file: Path, content: Mapping[str, Any], raw: bool) -> Weights:
    if raw:
        raise UserError(f"{file}: --raw is for published checkpoints; of ours, the average is taken where there is one")
    weights = read_weights(file)
    _check(weights, file)
    average = ", averaged weights" if "current_model_state" in content else ""
    found = f"{STAGES[weights.stage]} of difftalk_pl{average}"
    log.info("%s", ", ".join(filter(None, [f"{file}: {found}", _progress(content)])))
    say_parts(weights)
    weights.origin = weights.origin or ", ".join(filter(None, [file.name, found, _progress(content)]))
    return weights


def _check(weights: Weights, file: Path) -> None:
    """Raises UserError unless all tensors are those of the networks, and all numbers finite."""
    weights.check()
    for part in filter(None, (weights, weights.codec)):
        refuse_not_finite(part.state, file)


def _progress(content: Any) -> str:
    """How far the training had come, where the checkpoint says it."""
    if not isinstance(content, Mapping):
        return ""
    counts = {name: content.get(name) for name in ("epoch", "global_step")}
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if isinstance(count, int))


def _refuse_diffusers_folder(folder: Path) -> None:
    if (folder / "diffusion_pytorch_model.safetensors").exists() or (folder / "model_index.json").exists():
        raise UserError(f"{folder}: a folder of diffusers; a folder made by export, or a published file, is expected")
