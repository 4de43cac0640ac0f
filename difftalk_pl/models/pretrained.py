"""Published weight files: find them, check their hash, read them; `fetch-weights` downloads them."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torchmetrics
from torch import Tensor

from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

SOURCE = "https://download.pytorch.org/models"
BACKBONES = {  # torchvision's names; after the dash, the start of the file's SHA-256
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


class Published(NamedTuple):
    """A published file and its SHA-256, or the start of it."""

    name: str
    source: str
    sha256: str


SYNCNET = Published(
    "syncnet_v2.model",
    "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data",
    "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
)


class MissingWeights(UserError):
    """There is no such file; the message says how to get it."""


def checkpoints_folder() -> Path:
    """Return torch's folder of downloads, $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_backbone(network: str, given: Path | None, option: str) -> Path:
    """Return the weight file of alex, vgg or squeeze: the given one, else torchvision's in torch's folder.

    option: the setting that `given` comes from, for messages.

    Raises MissingWeights for no file, UserError for another hash than the one in its name.
    """
    name = BACKBONES[network]
    path = Path(given) if given is not None else checkpoints_folder() / name
    if not path.is_file():
        raise MissingWeights(
            f"{path}: no weights of {network}. Run `python -m difftalk_pl fetch-weights {network}`, or download "
            f"{SOURCE}/{name} into {checkpoints_folder()} (or anywhere, and name the file by {option})"
        )
    expected = HASH_IN_NAME.search(path.name)
    if expected is not None and not (actual := file_hash(path)).startswith(expected[1]):
        raise UserError(f"{path}: its SHA-256 is {actual}, not {expected[1]}…; delete it and fetch it again")
    return path


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict saved by torch, on the CPU, running nothing of it. Raises UserError for any other file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind raises anything, and torch's message advises to run it
        raise UserError(f"{path}: no readable weight file of torch; fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: no state dict: expected names with tensors")
    return content


def read_lpips_heads(network: str) -> dict[str, Tensor]:
    """Read the learnt weights of LPIPS's layers, which torchmetrics contains."""
    root = Path(torchmetrics.__file__).parent
    return read_tensors(root / "functional" / "image" / "lpips_models" / f"{network}.pth")


def fetch_weights(networks: list[Literal["alex", "vgg", "squeeze", "syncnet"]]) -> None:
    """Download published networks into torch's own folder, $TORCH_HOME/hub/checkpoints, and check their hashes.

    vgg (528 MiB) is the perceptual loss of stage 1, alex (233 MiB) measures LPIPS in `test`, squeeze (5 MiB) is the
    smallest. syncnet (52 MiB) judges lip sync. Complete files are kept.

    Args:
        networks: alex, vgg, squeeze, syncnet.
    """
    checkpoints_folder().mkdir(parents=True, exist_ok=True)
    for network in networks:
        name, source, sha256 = _published(network)
        path = checkpoints_folder() / name
        if path.is_file() and file_hash(path).startswith(sha256):
            log.info("%s: already there", path)
            continue
        try:
            torch.hub.download_url_to_file(f"{source}/{name}", str(path), hash_prefix=sha256)
        except (RuntimeError, OSError) as error:  # RuntimeError: another hash
            raise UserError(f"{source}/{name}: {error}; run it again, or download it elsewhere into {path}") from error
        log.info("%s: downloaded", path)


def _published(network: str) -> Published:
    if network == "syncnet":
        return SYNCNET
    name = BACKBONES[network]
    return Published(name, SOURCE, HASH_IN_NAME.findall(name)[0])
