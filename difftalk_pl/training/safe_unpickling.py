"""Checkpoints of other programs: read without running anything of them, and named where they are none.

torch's restricted reader builds tensors and plain containers only. Training programs put more into their checkpoints:
classes of callbacks as keys, configurations, numbers of numpy. A short list of such names gets inert stand-ins; the
modules of those names are never imported. Any other name is refused before the file is read.
"""

import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from difftalk_pl.errors import UserError

BY_TORCH = {f"builtins.{name}" for name in ("set", "bytearray", "complex")} | {
    "collections.OrderedDict",
    "collections.Counter",
    "_codecs.encode",
}
FILLED_AS_DICTIONARY = {
    "builtins.dict",
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
}
STAND_INS = re.compile(
    r"""(pytorch_lightning|lightning\.pytorch)\.callbacks(\.[a-z_]+)*\.[A-Z][A-Za-z]*
    |omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|base\.(Container)?Metadata)
    |omegaconf\.nodes\.(Any|Value|Integer|Float|String|Boolean|Bytes|Path)Node
    |numpy\.(dtype|ndarray|dtypes\.[A-Z][A-Za-z0-9]*DType|(core|_core)\.multiarray\.(scalar|_reconstruct))
    |builtins\.(object|list|tuple|int|float|str|bool|bytes)
    |typing\.Any|argparse\.Namespace|pathlib\.(Posix|Windows|PurePosix|PureWindows)?Path""",
    re.VERBOSE,
)
PYTHON_2 = {"__builtin__": "builtins"}  # pickles of protocol 2 still use its names, whatever wrote them
PYTHON_2_NAMES = {"builtins.long": "builtins.int", "builtins.unicode": "builtins.str"}
RECORD_LIMIT = 512 * 2**20  # bytes of an archive's pickle: names and sizes, no tensors; some kilobytes as a rule
LEGACY_PICKLES = 5  # number, protocol, system, content, keys of storages: then come the storages themselves
SHOWN = 12  # names listed in one message
BLOCKED = re.compile(r"GLOBAL (\S+)")
HEAD = 512  # bytes that tell what a file is
STARTS = {
    b"version https://git-lfs": "the pointer of a Git LFS file, not the file: fetch it with git lfs pull",
    b"<!doctype": "a web page, not the file behind it: download it again",
    b"<html": "a web page, not the file behind it: download it again",
    b"\x80": "a pickle, but none that torch.save wrote, or one that is cut short",
}


class _Refused(ValueError):
    """What is wrong with a file that is otherwise one of torch.save."""


class _Inert:
    """Takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Nothing happens, whatever the file asks for."""

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""


class _Dictionary:
    """For classes whose pickles are filled item by item, which torch allows for a dict alone."""

    def __new__(cls, *_: Any) -> dict:  # type: ignore[misc]
        return {}


def read_file(path: Path) -> Any:
    """The content of a checkpoint or of a safetensors file; tensors stay on disk until they are used.

    Raises UserError that says what the file is, or which names it would have run; nothing of it is ever run.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        names = set().union(*map(_names, _pickles(path)))
    except _Refused as error:
        raise UserError(f"{path}: not a readable checkpoint: {error}; nothing of it was run") from error
    except Exception as error:  # bytes that are no pickle raise whatever they hit upon
        raise UserError(f"{path}: not a readable checkpoint: it is {describe(path)}") from error
    if foreign := sorted(name for name in names if not _harmless(name)):
        raise UserError(f"{path}: not a readable checkpoint: it refers to {listed(foreign)}, and nothing of it was run")
    return _load(path, names)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file: it is {describe(path)}") from error


def _load(path: Path, names: set[str]) -> Any:
    replaced = [name for name in names if STAND_INS.fullmatch(name) or name in FILLED_AS_DICTIONARY]
    stand_ins: list[Any] = [(_stand_in(name), name) for name in replaced]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except Exception as error:  # a pickle that is made to be malformed can raise anything
        named = BLOCKED.search(str(error))
        cause = f"it refers to {named[1]}" if named else f"it is {describe(path)}"  # torch would advise to run it
        raise UserError(f"{path}: not a readable checkpoint: {cause}, and nothing of it was run") from error


def _stand_in(name: str) -> type:
    kind = _Dictionary if name in FILLED_AS_DICTIONARY else _Inert
    return type(name.rpartition(".")[2], (kind,), {"__module__": __name__})


def _harmless(name: str) -> bool:
    """torch itself judges the names below `torch`; of the rest, those it builds and those with a stand-in are known."""
    known = name in BY_TORCH or name in FILLED_AS_DICTIONARY or name.startswith("torch.")
    return known or STAND_INS.fullmatch(name) is not None


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    """The pickles of a checkpoint, one after the other: one in an archive, several in a file of the old format."""
    if _is_archive(path):
        with zipfile.ZipFile(path) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if record.replace("data.pkl", "constants.pkl") in archive.namelist():
                raise ValueError("TorchScript")
            _refuse_compressed(archive, record)
            yield BytesIO(archive.read(record))
        return
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            yield file


def _refuse_compressed(archive: zipfile.ZipFile, record: str) -> None:
    """torch.save compresses nothing, so that what is read is never more than the file's own size."""
    if packed := [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]:
        raise _Refused(
            f"compressed records, which torch.save never writes ({listed(packed)}): it was packed again; save it again"
        )
    if (size := archive.getinfo(record).file_size) > RECORD_LIMIT:
        raise _Refused(f"its {record} has {size:,} bytes, more than the {RECORD_LIMIT:,} that are read")


def _names(pickled: IO[bytes]) -> set[str]:
    """All that a pickle refers to by `module.name`, found by taking it apart, not by loading it."""
    found = set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            full = f"{PYTHON_2.get(module, module)}.{name}"
            found.add(PYTHON_2_NAMES.get(full, full))
        elif opcode.name == "STACK_GLOBAL":
            raise _Refused("it was written with pickle protocol 4 or newer; save it again with torch.save's default")
        elif opcode.name.startswith("EXT"):
            raise pickle.UnpicklingError("refers to names that only running it would show")
    return found


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def describe(path: Path) -> str:
    """What a file that is no checkpoint is instead, and what to do about it, as far as its first bytes tell."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for start, what in STARTS.items():
        if head.lstrip().lower().startswith(start):
            return what
    if not head:
        return "empty; fetch it again"
    if head.startswith(b"PK"):
        return _describe_archive(path)
    if tarfile.is_tarfile(path):
        return "a tar archive; unpack it first"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return f"a text that starts with {head.decode(errors='replace').splitlines()[0][:40]!r}"
    return f"{path.stat().st_size} bytes of no format known here"


def _describe_archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "a zip archive that is cut short; fetch it again"
    with zipfile.ZipFile(path) as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    if "constants.pkl" in names:
        return "a TorchScript archive, not a checkpoint"
    return "a damaged checkpoint" if "data.pkl" in names else "a zip archive, but not of torch.save; unpack it first"


def listed(names: list[str]) -> str:
    """Names in a row, the first dozen of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
