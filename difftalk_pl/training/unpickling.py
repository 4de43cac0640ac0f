"""Read checkpoints of any program without running anything of them.

torch's restricted unpickler builds tensors and plain containers only. Training programs add callback classes,
configurations and numpy numbers; a short list of such names gets inert stand-ins, and their modules are never imported.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from difftalk_pl.errors import UserError

DICTIONARIES = re.compile(
    r"(pytorch_lightning|lightning\.pytorch)\.utilities\.parsing\.AttributeDict"
    r"|lightning(_fabric|\.fabric)\.utilities\.data\.AttributeDict|collections\.defaultdict|builtins\.dict"
)
STAND_INS = re.compile(
    r"""(pytorch_lightning|lightning\.pytorch)\.callbacks(\.[a-z_]+)*\.[A-Z][A-Za-z]*
    |omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|base\.(Container)?Metadata)
    |omegaconf\.nodes\.(Any|Value|Integer|Float|String|Boolean|Bytes|Path)Node
    |numpy\.(dtype|ndarray|dtypes\.[A-Z][A-Za-z0-9]*DType|(core|_core)\.multiarray\.(scalar|_reconstruct))
    |builtins\.(object|list|tuple|int|float|str|bool|bytes)
    |typing\.Any|argparse\.Namespace|pathlib\.(Posix|Windows|PurePosix|PureWindows)?Path""",
    re.VERBOSE,
)
BLOCKED = re.compile(r"GLOBAL (\S+)")  # in torch's message


class _Inert:
    """Takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Inert":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


class _Dictionary:
    """Builds a plain dict, which torch's unpickler can fill."""

    def __new__(cls, *_: Any) -> dict:  # type: ignore[misc]
        return {}


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
        blocked = BLOCKED.search(str(error))
        cause = f"it refers to {blocked[1]}" if blocked else "it is damaged, incomplete or of another kind"
        raise UserError(f"{path}: not a readable checkpoint: {cause}; nothing of it was run") from error


def _stand_ins(path: Path) -> list[Any]:
    found = []
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(str(path)):
        kind = _Dictionary if DICTIONARIES.fullmatch(name) else _Inert if STAND_INS.fullmatch(name) else None
        if kind is not None:
            found.append((type(name.rpartition(".")[2], (kind,), {"__module__": __name__}), name))
    return found
