"""Weights on disk: Lightning checkpoints of all stages, and folders of config.json + model.safetensors.

Every checkpoint has an entry `difftalk_pl` with the stage, its configuration as plain values and, for diffusion, the
frozen autoencoder; what the data were is in the DataModule's entry. So one checkpoint is enough to make a video.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import safetensors.torch
import torch
from huggingface_hub import HfApi, snapshot_download
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.models.syncnet import SyncNet, SyncNetConfig
from difftalk_pl.training.unpickling import read_file

FORMAT = 1
ENTRY, DATA_ENTRY = "difftalk_pl", "HDTFDataModule"  # of a checkpoint
MODEL_FILE = "model.safetensors"
INSIDE = "autoencoder"  # the first stage, in the folder of a diffusion model
Stage = Literal["autoencoder", "diffusion", "syncnet"]
T = TypeVar("T")


class Kind(NamedTuple):
    """A stage's title, network, configuration, and the network's name in its LightningModule."""

    title: str
    network: type[nn.Module]
    config: type
    name: str


KINDS: dict[str, Kind] = {
    "autoencoder": Kind("an autoencoder (stage 1)", Autoencoder, AutoencoderConfig, "autoencoder"),
    "diffusion": Kind("a diffusion model (stage 2)", DiffTalk, DiffTalkConfig, "difftalk"),
    "syncnet": Kind("a SyncNet", SyncNet, SyncNetConfig, "syncnet"),
}


@dataclass(frozen=True)
class DataContract:
    """Features, mask policy and side of the frames that a diffusion model was trained on.

    Args:
        features_model: name of the network behind learned features; empty for none or unknown.
        features_sha256: its hash.
    """

    features: str = "mfcc"
    mask: str = "mouth_safe"
    size: int = 256
    features_model: str = ""
    features_sha256: str = ""

    def knows(self, features_sha256: str) -> bool:
        """Tell whether features of this origin may be those of the training; an unknown origin is trusted."""
        return "" in (self.features_sha256, features_sha256) or self.features_sha256 == features_sha256


@dataclass
class Weights:
    """A stage's network with all that is needed to build it again.

    Args:
        config: of the stage, plain values only.
        state: the network's tensors, EMA where there is one.
        codec: the frozen autoencoder of a diffusion model.
        path: where they were read, for messages.
    """

    stage: Stage
    config: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    codec: "Weights | None" = field(default=None, repr=False)
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> "Weights":
        """Read a folder, a checkpoint, or a revision of a repository (OWNER/NAME) of the Hugging Face hub."""
        if Path(name).exists():
            return read_weights(Path(name))
        try:
            folder = snapshot_download(str(name), revision=revision, allow_patterns=["*.json", "*.safetensors"])
        except (OSError, ValueError) as error:
            cause = str(error).partition("\n")[0]
            raise UserError(f"{name}: neither a file or folder here nor a repository of the hub ({cause})") from error
        return read_weights(Path(folder))

    def save_pretrained(self, folder: str | Path, half: bool = False) -> None:
        """Write config.json and model.safetensors, and the autoencoder of a diffusion model in a folder inside.

        half: as 16 bit floats, but for tensors with larger numbers, such as variances of pixels.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stored = {name: (_halved(value) if half else value).contiguous() for name, value in self.state.items()}
        content = {"format": FORMAT, "stage": self.stage, "config": self.config, "hash": weights_hash(_floats(stored))}
        (folder / MODEL_FILE).write_bytes(safetensors.torch.save(stored))
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.codec is not None:
            self.codec.save_pretrained(folder / INSIDE, half)

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Upload as a repository (OWNER/NAME) of the Hugging Face hub. Returns its address."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            url = HfApi().create_repo(repo_id, private=private, exist_ok=True)
            HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
        return str(url)

    def autoencoder(self) -> Autoencoder:
        """Build the autoencoder, also that of a diffusion model. Raises UserError for a SyncNet."""
        return (self.codec or self).build("autoencoder").requires_grad_(False)  # type: ignore[return-value]

    def difftalk(self) -> DiffTalk:
        """Build the conditional denoiser. Raises UserError for another stage."""
        return self.build("diffusion")  # type: ignore[return-value]

    def syncnet(self) -> SyncNet:
        """Build the SyncNet. Raises UserError for another stage."""
        return self.build("syncnet").requires_grad_(False)  # type: ignore[return-value]

    def build(self, stage: Stage) -> nn.Module:
        """Build the network of a stage. Raises UserError for another one, or for tensors that are not exactly its."""
        source, kind = self.path or Path("weights"), KINDS[stage]
        if self.stage != stage:
            raise UserError(f"{source}: these are weights of {KINDS[self.stage].title}; {kind.title} is needed")
        with torch.device("meta"):
            network = kind.network(from_dict(kind.config, self.config[kind.name]))
        layout = torch.contiguous_format  # the last digits of results depend on the layout
        copies = {name: value.clone(memory_format=layout) for name, value in _floats(self.state).items()}
        load_into(network, copies, source, assign=True)
        return network.eval()

    @property
    def schedule(self) -> NoiseSchedule:
        return from_dict(NoiseSchedule, self.config["schedule"])

    @property
    def data(self) -> DataContract:
        if "data" not in self.config:
            raise UserError(
                f"{self.path or 'weights'}: do not say what data they were trained on; "
                "run import-checkpoint with --features, --mask and --size"
            )
        return from_dict(DataContract, self.config["data"])

    @property
    def hash(self) -> str:
        return weights_hash(self.state)


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass from nested plain values: lists become tuples, missing keys defaults. TypeError for others."""
    hints = get_type_hints(kind)
    restored = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    nested = {key: from_dict(hints[key], value) for key, value in restored.items() if isinstance(value, Mapping)}
    return kind(**restored | nested)


def plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as JSON has it, with lists for tuples."""
    return json.loads(json.dumps(asdict(config)))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of all names and tensors; it does not cover the configuration."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        value = state[name].detach().cpu().contiguous()
        digest.update((value.float() if value.dtype == torch.bfloat16 else value).numpy().tobytes())  # numpy has none
    return digest.hexdigest()[:12]


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: Path, assign: bool = False) -> None:
    """Load all tensors or none. Raises UserError that names what does not fit or is not finite."""
    broken = [name for name, value in state.items() if not value.float().isfinite().all()]
    if broken:
        raise UserError(f"{source}: {len(broken)} tensors have numbers that are not finite: {listed(broken)}")
    try:
        network.load_state_dict(dict(state), strict=True, assign=assign)
    except RuntimeError as error:
        cause = " ".join(str(error).split())[:500]
        raise UserError(f"{source}: the weights do not fit the configured network: {cause}") from error


def listed(names: Sequence[str], most: int = 12) -> str:
    """Join names, at most a dozen."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def entry(stage: Stage, config: dict[str, Any], codec: Weights | None = None) -> dict[str, Any]:
    """Return the `difftalk_pl` entry of a checkpoint, with configurations as plain values."""
    config = {name: plain(value) if is_dataclass(value) else value for name, value in config.items()}
    first = {} if codec is None else {"codec": {"config": codec.config, "state": codec.state}}
    return {"format": FORMAT, "stage": stage, "config": config, **first}


def checked_entry(checkpoint: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Return that entry. Raises UserError where a LightningModule is to load another stage's checkpoint."""
    found = checkpoint.get(ENTRY, {}).get("stage", "another program")
    if found != stage:
        raise UserError(f"the checkpoint is of {found}, expected {stage}")
    return checkpoint[ENTRY]


def read_weights(path: Path) -> Weights:
    """Read a checkpoint or an exported folder. Raises UserError that names the file and what is wrong with it."""
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_checkpoint(path)


def _read_checkpoint(path: Path) -> Weights:
    checkpoint = read_file(path)
    if not isinstance(checkpoint, dict) or checkpoint.get(ENTRY, {}).get("format") != FORMAT:
        raise UserError(f"{path}: no checkpoint of this version of difftalk_pl; import-checkpoint takes published ones")
    content, data = checkpoint[ENTRY], checkpoint.get(DATA_ENTRY, {})
    stage, config, codec = content["stage"], dict(content["config"]), content.get("codec")
    if stage == "diffusion" and data:
        config["data"] = {each.name: data[each.name] for each in fields(DataContract)}
    prefix = f"{KINDS[stage].name}."
    state = {name[len(prefix) :]: value for name, value in checkpoint["state_dict"].items() if name.startswith(prefix)}
    first = None if codec is None else Weights("autoencoder", codec["config"], codec["state"], path=path)
    return Weights(stage, config, state, first, path)


def _read_folder(path: Path) -> Weights:
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable model folder ({error}); make it with export") from error
    if content.get("format") != FORMAT or content.get("stage") not in KINDS:
        raise UserError(f"{path}: format {content.get('format')}, this version reads {FORMAT}")
    codec = _read_folder(path / INSIDE) if content["stage"] == "diffusion" else None
    weights = Weights(content["stage"], content["config"], _floats(read_file(path / MODEL_FILE)), codec, path)
    if weights.hash != content["hash"]:
        raise UserError(f"{path}: {MODEL_FILE} does not belong to config.json; export it again")
    return weights


def _halved(value: Tensor) -> Tensor:
    half = value.half() if value.is_floating_point() else value
    return half if half.isfinite().all() else value


def _floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def export(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a checkpoint's weights (EMA where it has one) as a folder of config.json and model.safetensors.

    Args:
        checkpoint: a .ckpt file of any stage.
        out: the folder to write; every command that takes a checkpoint's weights takes it.
        half: store 16 bit floats; they are computed with as 32 bit floats all the same.
    """
    read_weights(checkpoint).save_pretrained(out, half)
