"""Weights on disk: Lightning checkpoints of both stages, and folders of config.json + model.safetensors.

Every checkpoint holds, beside Lightning's own entries, `difftalk_pl`: the stage, its configuration as plain values and,
for diffusion, the frozen autoencoder. So a checkpoint is enough to make a video, and nothing in it is ever unpickled.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.configuration import from_dict
from difftalk_pl.models.difftalk import DiffTalk, DiffTalkConfig
from difftalk_pl.models.sampling import NoiseSchedule

FORMAT = 1
ENTRY = "difftalk_pl"
Stage = Literal["autoencoder", "diffusion"]


@dataclass(frozen=True)
class DataContract:
    """What the data must be for a trained model: kind of features, mask policy, side of the frames."""

    features: str = "mfcc"
    mask: str = "mouth_safe"
    size: int = 256


@dataclass
class Weights:
    """A stage's network with all that is needed to build it again.

    Args:
        config: of the stage, plain values only.
        state: the network's tensors, EMA where there is one.
        codec: the frozen autoencoder of a diffusion model.
    """

    stage: Stage
    config: dict[str, Any]
    state: dict[str, Tensor]
    codec: "Weights | None" = field(default=None, repr=False)

    def autoencoder(self) -> Autoencoder:
        """The autoencoder, whichever the stage."""
        if self.codec is not None:
            return self.codec.autoencoder()
        network = Autoencoder(AutoencoderConfig.from_dict(self.config["autoencoder"]))
        network.load_state_dict(self.state, strict=True)
        return network.eval().requires_grad_(False)

    def difftalk(self) -> DiffTalk:
        """The conditional denoiser. Raises UserError for weights of stage 1."""
        if self.stage != "diffusion":
            raise UserError("these are weights of an autoencoder (stage 1); a diffusion model (stage 2) is needed")
        network = DiffTalk(DiffTalkConfig.from_dict(self.config["difftalk"]))
        network.load_state_dict(self.state, strict=True)
        return network.eval()

    @property
    def schedule(self) -> NoiseSchedule:
        return from_dict(NoiseSchedule, self.config["schedule"])

    @property
    def data(self) -> DataContract:
        return from_dict(DataContract, self.config["data"])

    @property
    def hash(self) -> str:
        return weights_hash(self.state)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """12 hexadecimal digits of the SHA-256 of all tensors: the same for a checkpoint and the folder made from it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def entry(stage: Stage, config: dict[str, Any], codec: Weights | None = None) -> dict[str, Any]:
    """The `difftalk_pl` entry of a checkpoint."""
    content: dict[str, Any] = {"format": FORMAT, "stage": stage, "config": config}
    if codec is not None:
        content["codec"] = {"config": codec.config, "state": codec.state}
    return content


def read_weights(path: Path) -> Weights:
    """Open a checkpoint or an exported folder. Raises UserError that names the file and what is wrong with it."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; give a .ckpt file of a run or a folder made by export")
    return _read_checkpoint(path)


def _read_checkpoint(path: Path) -> Weights:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise UserError(f"{path}: no checkpoint of difftalk_pl (it has no entry {ENTRY!r})")
    content = checkpoint[ENTRY]
    _check_format(path, content)
    prefix = "autoencoder." if content["stage"] == "autoencoder" else "difftalk."
    state = {name[len(prefix) :]: value for name, value in checkpoint["state_dict"].items() if name.startswith(prefix)}
    codec = content.get("codec")
    return Weights(
        content["stage"],
        content["config"],
        state,
        None if codec is None else Weights("autoencoder", codec["config"], codec["state"]),
    )


def _read_folder(path: Path) -> Weights:
    config = path / "config.json"
    if not config.exists() or not (path / "model.safetensors").exists():
        raise UserError(
            f"{path}: not a model folder, config.json or model.safetensors is missing; make one with export"
        )
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        state = load_file(path / "model.safetensors")
    except (ValueError, OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable model folder ({error}); make it again with export") from error
    _check_format(config, content)
    codec = _read_folder(path / "autoencoder") if content["stage"] == "diffusion" else None
    weights = Weights(content["stage"], content["config"], _as_floats(state), codec)
    if weights.hash != content["hash"]:
        raise UserError(f"{path}: model.safetensors is not the one that config.json was written with; export it again")
    return weights


def _check_format(path: Path, content: Mapping[str, Any]) -> None:
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')}, this version reads {FORMAT}")


def write_folder(weights: Weights, path: Path, half: bool = False) -> None:
    """Write config.json and model.safetensors; a diffusion model gets its autoencoder in a folder inside."""
    path.mkdir(parents=True, exist_ok=True)
    stored = {name: value.contiguous() for name, value in weights.state.items()}
    if half:
        stored = {name: value.half() if value.is_floating_point() else value for name, value in stored.items()}
    save_file(stored, path / "model.safetensors")
    (path / "model.safetensors").chmod(0o644)  # it comes readable for its writer alone
    digest = weights_hash(_as_floats(stored))
    content = {"format": FORMAT, "stage": weights.stage, "config": weights.config, "hash": digest}
    (path / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if weights.codec is not None:
        write_folder(weights.codec, path / "autoencoder", half)


def _as_floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def export(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a checkpoint's weights (EMA where it has one) as a folder of config.json and model.safetensors.

    Args:
        checkpoint: a .ckpt file of either stage.
        out: the folder to write; --checkpoint, --model.init_from and --model.autoencoder accept it.
        half: store 16 bit floats; they are computed with as 32 bit floats all the same.
    """
    write_folder(read_weights(checkpoint), out, half)


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as JSON would give it back: lists for tuples."""
    return json.loads(json.dumps(asdict(config)))


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Strict loading with an error that names what does not fit."""
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise UserError(f"{source}: weights do not fit the configured network: {error}") from error
