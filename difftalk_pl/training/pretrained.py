"""Published networks: LPIPS as a loss and a measure, and the command `fetch-weights`."""

import importlib.metadata
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torchmetrics
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash
from difftalk_pl.models.perceptual import LPIPS, Network
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import load_into

log = logging.getLogger(__name__)

TORCHVISION = "https://download.pytorch.org/models/"
BACKBONES = {  # torchvision's names; after the dash, the start of the file's SHA-256
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
SYNCNET = "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model"
SYNCNET_SHA256 = "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"


class MissingWeights(UserError):
    """There is no such file; the message says how to get it."""


@dataclass
class Perceptual:
    """The perceptual part of stage 1's loss. Published: vgg with weight 1.

    Args:
        network: alex, vgg or squeeze; null trains without it.
        weights: file of the network; by default the published one where `fetch-weights` puts it.
        weight: of the distance beside the mean absolute error.
    """

    network: Network | Literal["None"] | None = None
    weights: Path | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:  # jsonargparse passes a nested null of the command line as a word
        self.network = None if self.network == "None" else self.network
        self.weights = None if str(self.weights) in ("None", "null") else self.weights


class PerceptualDistance:
    """A frozen LPIPS with its file. No nn.Module, so that checkpoints, EMA, optimizers and DDP do not see it.

    weights: a file, or None for the published one in torch's folder. option: the setting of it, for messages.

    Raises MissingWeights for no file, UserError for a file of another network or with another hash than in its name.
    """

    def __init__(self, network: Network, weights: Path | None, option: str) -> None:
        self.name, self.file = network, weights or checkpoints_folder() / BACKBONES[network]
        if not self.file.is_file():
            raise MissingWeights(
                f"{self.file}: no weights of {network}. Run `python -m difftalk_pl fetch-weights {network}`, or "
                f"download {TORCHVISION}{BACKBONES[network]} and name the file by {option}"
            )
        expected = _hash_in_name(self.file.name)
        if not (actual := file_hash(self.file)).startswith(expected):
            raise UserError(f"{self.file}: its SHA-256 is {actual}, not {expected}…; delete it and fetch it again")
        self.network = LPIPS(network)
        load_into(self.network, lpips_state(network, read_file(self.file)), self.file)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __deepcopy__(self, memo: dict) -> "PerceptualDistance":
        return self

    def to(self, device: torch.device) -> "PerceptualDistance":
        self.network.to(device)
        return self

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances (B,), with gradients, of (B, 3, H, W) in [-1, 1]."""
        return self.network(x, y)

    @torch.no_grad()
    def layers(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the maps (B, 1, h, w) of all layers, for measures: in 32 bits, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return self.network.layers(x.float(), y.float())

    def describe(self) -> dict[str, str]:
        """Return what to publish with a number measured by it."""
        heads = f"torchmetrics {importlib.metadata.version('torchmetrics')}"
        return {"network": self.name, "file": self.file.name, "sha256": file_hash(self.file), "heads": heads}


def lpips_state(network: Network, backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    """Combine torchvision's state dict of a backbone, without its classifier, and the heads that torchmetrics has."""
    state = {name: value for name, value in backbone.items() if not name.startswith("classifier.")}
    heads = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"
    for name, value in read_file(heads).items():  # lin0.model.1.weight
        state[re.sub(r"lin(\d)\.model\.1", r"heads.\1", name)] = value
    return state


def checkpoints_folder() -> Path:
    """Return torch's folder of downloads, $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch_weights(networks: list[Literal["alex", "vgg", "squeeze", "syncnet"]]) -> None:
    """Download published networks into torch's own folder, $TORCH_HOME/hub/checkpoints, and check their hashes.

    vgg (528 MiB) is the perceptual loss of stage 1, alex (233 MiB) measures LPIPS in `test`, squeeze (5 MiB) is the
    smallest. syncnet (52 MiB) judges lip sync. Complete files are kept.

    Args:
        networks: alex, vgg, squeeze, syncnet.
    """
    checkpoints_folder().mkdir(parents=True, exist_ok=True)
    for network in networks:
        url = SYNCNET if network == "syncnet" else TORCHVISION + BACKBONES[network]
        path = checkpoints_folder() / url.rpartition("/")[2]
        expected = SYNCNET_SHA256 if network == "syncnet" else _hash_in_name(path.name)
        if not path.is_file() or not file_hash(path).startswith(expected):
            try:
                torch.hub.download_url_to_file(url, str(path), hash_prefix=expected)
            except (RuntimeError, OSError) as error:  # RuntimeError: another hash
                raise UserError(f"{url}: {error}; run it again, or download it elsewhere into {path}") from error
        log.info("%s: complete", path)


def _hash_in_name(name: str) -> str:
    """Return the start of a file's SHA-256 in torch's names, such as alexnet-owt-7be5be79.pth; empty for others."""
    found = re.search(r"-([0-9a-f]{8,64})\.", name)
    return found[1] if found else ""
