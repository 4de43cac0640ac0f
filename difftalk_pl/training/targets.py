"""What may be written over: nothing but what the same command made before."""

import json
from collections.abc import Mapping
from pathlib import Path

from difftalk_pl.errors import UserError
from difftalk_pl.training.safe_unpickling import listed, read_file

CHECKPOINT = ".ckpt"
FILES = {".pth", ".pt", ".bin", ".safetensors"}  # names of weight files that nothing here writes by themselves
STAGES = ("autoencoder", "diffusion")


def is_model_folder(folder: Path) -> bool:
    """Whether its config.json is one that difftalk_pl writes."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "format" in content and content.get("stage") in STAGES


def refuse_foreign_folder(folder: Path) -> None:
    """Raises UserError unless the folder is missing, empty but for hidden files, or a model folder."""
    if folder.suffix.lower() in FILES:
        raise UserError(
            f"{folder}: --out takes a folder, in which the weights are called model.safetensors; of import-checkpoint, "
            f"a name that ends in {CHECKPOINT}, too"
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; --out takes a folder")
    there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if there and not is_model_folder(folder):
        raise UserError(
            f"{folder}: holds {listed(there)}, which export and import-checkpoint did not make: "
            "give --out a new or an empty folder, or a model folder to write over"
        )


def refuse_foreign_checkpoint(file: Path, source: Path, entry: str) -> None:
    """Raises UserError unless there is no such file, or one that import-checkpoint made of something else.

    entry: the one that checkpoints of difftalk_pl have; with it, `origin` tells those that hold weights alone.
    """
    if not file.exists():
        return
    if file.is_dir():
        raise UserError(f"{file}: is a folder; --out takes a new name that ends in {CHECKPOINT}, or a model folder")
    if file.samefile(source):
        raise UserError(f"{file}: is the file that is read: give --out another name")
    if not _is_imported(file, entry):
        raise UserError(
            f"{file}: is there, and import-checkpoint did not make it: it may be all that a run goes on from; "
            "give --out a new name"
        )


def _is_imported(file: Path, entry: str) -> bool:
    try:
        content = read_file(file)
    except UserError:
        return False
    ours = content.get(entry) if isinstance(content, Mapping) else None
    return isinstance(ours, Mapping) and "origin" in ours and "optimizer_states" not in content
