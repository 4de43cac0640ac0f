"""Read checkpoints of any program without running anything of them.

torch's restricted unpickler builds tensors and plain containers only. Training programs add callback classes,
configurations and numpy numbers; such names get inert stand-ins, and their modules are never imported.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from difftalk_pl.errors import UserError

STAND_INS = (  # starts of names
    *("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy."),
    *("collections.", "builtins.", "typing.", "argparse.", "pathlib."),
)
DICTIONARIES = (".AttributeDict", ".defaultdict", ".dict")


class _Inert:
    """Takes any arguments and any state, and keeps nothing; a dictionary is a plain one, which torch can fill."""

    def __new__(cls, *_: Any) -> Any:
        return {} if cls.__name__.endswith(DICTIONARIES) else object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


def read_file(path: Path) -> Any:
    """Return the content of a .ckpt, .pth or .safetensors file; tensors stay on disk until they are used.

    Raises UserError for any other file, and for one that refers to code without a stand-in.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        archive = zipfile.is_zipfile(path)  # before torch 1.6 it was none; of that format only tensors are read
        with torch.serialization.safe_globals(_stand_ins(path) if archive else []):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # a damaged or foreign file raises anything, and torch's message advises to run it
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        cause = f"it refers to {blocked[1]}" if blocked else "it is damaged, incomplete or of another kind"
        raise UserError(f"{path}: not a readable checkpoint: {cause}; nothing of it was run") from error


def _stand_ins(path: Path) -> list[Any]:
    """Return a class of its own for every name, since torch keeps the names by class."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    return [(type(name, (_Inert,), {}), name) for name in names if name.startswith(STAND_INS)]
