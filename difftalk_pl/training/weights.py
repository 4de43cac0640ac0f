"""Weights on disk: Lightning checkpoints of all stages, and folders of config.json + model.safetensors.

Every checkpoint holds, beside Lightning's own entries, `difftalk_pl`: the stage, its configuration as plain values and,
for diffusion, the frozen autoencoder. So a checkpoint is enough to make a video, and nothing in it is ever unpickled.
"""

import hashlib
import importlib.metadata
import json
import os
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
from difftalk_pl.models.syncnet import SyncNet, SyncNetConfig
from difftalk_pl.training.contract import DataContract
from difftalk_pl.training.hub import download, model_card, write_card
from difftalk_pl.training.safe_unpickling import read_file
from difftalk_pl.training.strict import load_into, refuse_misfits
from difftalk_pl.training.targets import refuse_foreign_folder

FORMAT = 1
ENTRY = "difftalk_pl"
MODEL_FILE = "model.safetensors"
INSIDE = "autoencoder"  # the first stage, in the folder of a diffusion model
PREFIXES = {"autoencoder": "autoencoder.", "diffusion": "difftalk.", "syncnet": "syncnet."}  # in Lightning's modules
Stage = Literal["autoencoder", "diffusion", "syncnet"]
STAGES = {"autoencoder": "an autoencoder (stage 1)", "diffusion": "a diffusion model (stage 2)", "syncnet": "a SyncNet"}


@dataclass
class Weights:
    """A stage's network with all that is needed to build it again.

    Args:
        config: of the stage, plain values only.
        state: the network's tensors, EMA where there is one.
        codec: the frozen autoencoder of a diffusion model.
        path: where they were read, for messages.
        origin: one line on what they were made from, for the model card.
    """

    stage: Stage
    config: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    codec: "Weights | None" = field(default=None, repr=False)
    path: Path | None = field(default=None, compare=False)
    origin: str = field(default="", compare=False)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "Weights":
        """From a folder, a checkpoint, or a repository of the Hugging Face hub (OWNER/NAME, then a revision of it)."""
        if Path(name).exists():
            return read_weights(Path(name))
        return read_weights(download(str(name), revision))

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Write a folder that `from_pretrained` and every command read, with a model card; half: as 16 bit floats.

        Raises UserError for a folder with anything else in it than such a model.
        """
        refuse_foreign_folder(Path(folder))
        if self.codec is not None:
            refuse_foreign_folder(Path(folder) / INSIDE)
        write_folder(self, Path(folder), half)
        write_card(Path(folder), model_card(self.stage, self.config, self.parameters, self.hash, self.origin))

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of weights, by the parts of the network."""
        parts: dict[str, int] = {}
        for name, value in self.state.items():
            part = name.partition(".")[0] if self.stage == "diffusion" else self.stage
            parts[part] = parts.get(part, 0) + value.numel()
        return parts if self.codec is None else parts | self.codec.parameters

    def autoencoder(self) -> Autoencoder:
        """The autoencoder, also that of a diffusion model. Raises UserError for weights of a SyncNet."""
        if self.codec is not None:
            return self.codec.autoencoder()
        return self._assemble("autoencoder").requires_grad_(False)  # type: ignore[return-value]

    def difftalk(self) -> DiffTalk:
        """The conditional denoiser. Raises UserError for weights of another stage."""
        return self._assemble("diffusion")  # type: ignore[return-value]

    def syncnet(self) -> SyncNet:
        """The judge of lip sync. Raises UserError for weights of another stage."""
        return self._assemble("syncnet").requires_grad_(False)  # type: ignore[return-value]

    def check(self) -> None:
        """Raises UserError where the tensors are not exactly those of the configured networks."""
        refuse_misfits(self._without_memory(), self.state, self.path or Path("weights"))
        if self.codec is not None:
            self.codec.check()

    def _assemble(self, wanted: Stage) -> nn.Module:
        """The network with copies of the tensors. They are not drawn at random first, and they lie in memory as any
        other tensors do: where they lay mapped from a file, the last digits of what they compute would be others."""
        if self.stage != wanted:
            where = "" if self.path is None else f"{self.path}: "
            raise UserError(f"{where}these are weights of {STAGES[self.stage]}; {STAGES[wanted]} is needed")
        network = self._without_memory()
        floats = _as_floats(self.state)
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in floats.items()}
        load_into(network, copies, self.path or Path("weights"), assign=True)
        return network.eval()

    def _without_memory(self) -> nn.Module:
        try:
            with torch.device("meta"):
                if self.stage == "syncnet":
                    return SyncNet(from_dict(SyncNetConfig, self.config["syncnet"]))
                if self.stage == "autoencoder":
                    return Autoencoder(AutoencoderConfig.from_dict(self.config["autoencoder"]))
                return DiffTalk(DiffTalkConfig.from_dict(self.config["difftalk"]))
        except ValueError as error:
            raise UserError(f"{self.path or 'weights'}: {error}") from error

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
    """12 hexadecimal digits of the SHA-256 of all tensors: the same for a checkpoint and the folder made from it.

    It covers names and numbers of the tensors and nothing else: weights whose configurations differ in what no tensor
    shows, such as heads, schedule, features, mask or size of the frames, share it. For an autoencoder, whose latents
    are cached under it, the tensors tell all but its group norms.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        value = state[name].detach().cpu().contiguous()
        digest.update((value.float() if value.dtype == torch.bfloat16 else value).numpy().tobytes())  # numpy has none
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
    checkpoint = read_file(path)
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise UserError(
            f"{path}: no checkpoint of difftalk_pl (it has no entry {ENTRY!r}); import-checkpoint takes published ones"
        )
    content = checkpoint[ENTRY]
    _check_format(path, content)
    prefix = PREFIXES[content["stage"]]
    state = {name[len(prefix) :]: value for name, value in checkpoint["state_dict"].items() if name.startswith(prefix)}
    codec = content.get("codec")
    return Weights(
        content["stage"],
        content["config"],
        state,
        None if codec is None else Weights("autoencoder", codec["config"], codec["state"], path=path),
        path,
        content.get("origin", ""),
    )


def _read_folder(path: Path) -> Weights:
    config = path / "config.json"
    if not config.exists() or not (path / MODEL_FILE).exists():
        raise UserError(
            f"{path}: not a model folder, config.json or model.safetensors is missing; make one with export"
        )
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        state = load_file(path / MODEL_FILE)
    except (ValueError, OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable model folder ({error}); make it again with export") from error
    _check_format(config, content)
    codec = _read_folder(path / INSIDE) if content["stage"] == "diffusion" else None
    weights = Weights(content["stage"], content["config"], _as_floats(state), codec, path, content.get("origin", ""))
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
        stored = {name: _halved(value) for name, value in stored.items()}
    aside = path / f".{MODEL_FILE}.tmp"  # the weights may be those that lie there
    save_file(stored, aside)
    aside.chmod(0o644)  # it comes readable for its writer alone
    os.replace(aside, path / MODEL_FILE)
    digest = weights_hash(_as_floats(stored))
    content = {"format": FORMAT, "stage": weights.stage, "config": weights.config, "hash": digest}
    if weights.origin:
        content["origin"] = weights.origin
    (path / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if weights.codec is not None:
        write_folder(weights.codec, path / INSIDE, half)


def write_checkpoint(weights: Weights, path: Path) -> None:
    """Write one .ckpt file that read_weights opens; it holds no optimizer, so that no training goes on from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = PREFIXES[weights.stage]
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": importlib.metadata.version("lightning"),
        "state_dict": {prefix + name: value for name, value in weights.state.items()},
        ENTRY: entry(weights.stage, weights.config, weights.codec) | {"origin": weights.origin},
    }
    aside = path.with_name(f".{path.name}.tmp")
    torch.save(checkpoint, aside)
    os.replace(aside, path)


def _halved(value: Tensor) -> Tensor:
    """As 16 bits, unless it would not be finite then, as variances of pixels may not."""
    half = value.half() if value.is_floating_point() else value
    return half if half.isfinite().all() else value


def _as_floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def export(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a checkpoint's weights (EMA where it has one) as a folder of config.json and model.safetensors.

    Args:
        checkpoint: a .ckpt file of any stage.
        out: the folder to write; whatever takes a checkpoint's weights takes it.
        half: store 16 bit floats; they are computed with as 32 bit floats all the same.
    """
    read_weights(checkpoint).save_pretrained(out, half)


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as JSON would give it back: lists for tuples."""
    return json.loads(json.dumps(asdict(config)))
