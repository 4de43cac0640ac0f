"""Weight files that others published: found by name, proved by their hash, read without unpickling.

Nothing is fetched unasked: the command `fetch-weights` does it.
"""

import hashlib
import importlib.util
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from difftalk_pl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SOURCE = "https://download.pytorch.org/models"
BACKBONES = {  # torchvision's names; what follows the dash is the start of the file's SHA-256
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class Published(NamedTuple):
    """A file whose name does not carry its hash."""

    name: str
    source: str
    sha256: str


SYNCNET = Published(
    "syncnet_v2.model",
    "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data",
    "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
)
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


class MissingWeights(UserError):
    """No such file; the message says how to get it."""


def checkpoints_folder() -> Path:
    """Where torch keeps what it downloads: $TORCH_HOME/hub/checkpoints."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def find_backbone(network: str, given: Path | None, option: str) -> Path:
    """The weights of an ImageNet network: the file that was given, else torchvision's in torch's folder.

    Args:
        network: alex, vgg or squeeze.
        given: any file, under any name.
        option: the setting that `given` comes from, for messages.

    Raises:
        MissingWeights: there is no such file.
        UserError: its name carries a hash, and the file has another.
    """
    name = BACKBONES[network]
    path = Path(given) if given is not None else checkpoints_folder() / name
    if not path.is_file():
        raise MissingWeights(
            f"{path}: no weights of {network}. Run `python -m difftalk_pl fetch-weights {network}`, or download "
            f"{SOURCE}/{name} by hand into {checkpoints_folder()} (or anywhere, and name the file by {option})"
        )
    check_hash(path)
    return path


def check_hash(path: Path) -> None:
    """Hold a file against the hash in its name, where there is one. Raises UserError."""
    expected = HASH_IN_NAME.search(path.name)
    if expected is None:
        return
    actual = file_hash(path)
    if not actual.startswith(expected[1]):
        raise UserError(
            f"{path}: not the published file: its SHA-256 should start with {expected[1]} and is {actual}; "
            "delete it and fetch it again"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """A state dict saved by torch, on the CPU. Raises UserError for anything else."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what is no weight file raises anything, and torch's own words advise to run it
        raise UserError(
            f"{path}: not a readable weight file: cut short, of another kind, or with more in it than tensors; nothing "
            "of it was run, fetch it again"
        ) from error
    if not isinstance(content, dict) or not all(map(_is_entry, content, content.values())):
        raise UserError(f"{path}: no state dict: expected names with tensors, as torchvision's weight files have")
    return content


def _is_entry(name: object, value: object) -> bool:
    """Whether these are the name of a weight and numbers that lie in memory one after another."""
    import torch

    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout is torch.strided and not (value.is_meta or value.is_quantized)


def read_lpips_heads(network: str) -> "dict[str, Tensor]":
    """The learnt weights of LPIPS's layers, which come with torchmetrics. Raises UserError where they did not."""
    package = importlib.util.find_spec("torchmetrics")
    for root in (package and package.submodule_search_locations) or ():
        path = Path(root) / "functional" / "image" / "lpips_models" / f"{network}.pth"
        if path.is_file():
            return read_tensors(path)
    raise UserError(f"torchmetrics: installed without lpips_models/{network}.pth; install torchmetrics>=1.9 again")


def fetch_weights(networks: list[Literal["alex", "vgg", "squeeze", "syncnet"]]) -> None:
    """Download published networks into torch's own folder ($TORCH_HOME/hub/checkpoints).

    LPIPS looks with ImageNet networks: vgg (528 MiB) is the loss of stage 1, alex (233 MiB) measures in `test`, squeeze
    (5 MiB) is the smallest. syncnet (52 MiB) judges lip sync; give its path where a SyncNet is asked for. Files that
    are there and whole are kept.

    Args:
        networks: alex, vgg, squeeze, syncnet.
    """
    folder = checkpoints_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for network in dict.fromkeys(networks):
        file = _published(network)
        path = folder / file.name
        if path.is_file() and file_hash(path).startswith(file.sha256):
            log.info("%s is there", path)
            continue
        _download(path, file)
        log.info("%s fetched", path)


def _published(network: str) -> Published:
    """Of torchvision's files the name tells the start of the hash."""
    if network == "syncnet":
        return SYNCNET
    expected = HASH_IN_NAME.search(BACKBONES[network])
    assert expected is not None
    return Published(BACKBONES[network], SOURCE, expected[1])


def _download(path: Path, file: Published) -> None:
    """Fetch a published file, aside and renamed, so that it appears whole and proved or not at all."""
    import torch

    url = f"{file.source}/{file.name}"
    try:
        with _patience(TIMEOUT):
            torch.hub.download_url_to_file(url, str(path), hash_prefix=file.sha256, progress=True)
    except RuntimeError as error:  # torch's word for another hash
        raise UserError(f"{url}: came incomplete or changed ({error}); nothing was kept, run it again") from error
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{url}: cannot be fetched ({error}); run it again with a network, or download it elsewhere into {path}"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """A limit on waiting for a byte; torch.hub has none of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
