"""Clips that are being written lie beside the finished ones under names that tell who writes; the dead leave them."""

import glob
import os
import re
import shutil
import socket
from collections.abc import Collection
from pathlib import Path

from difftalk_pl.data.files.claims import is_running

OLD = ".old.tmp"  # the end of the name of a finished clip while a new one takes its place
ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<process>\d+)(\.old)?\.tmp")


def aside_name(name: str) -> str:
    """Of the folder in which this process writes a clip."""
    return f".{name}.{_host()}.{os.getpid()}.tmp"


def remove_leftovers(root: Path, busy: Collection[str] = ()) -> list[str]:
    """Remove half-written clips whose writer on this machine is dead, but none of clips that are `busy`; says which."""
    removed = []
    for folder in (root / "clips").glob(".*.tmp"):
        found = ASIDE.fullmatch(folder.name)
        if found and found["host"] == _host() and found["name"] not in busy and not is_running(int(found["process"])):
            _discard(folder, found["name"])
            removed.append(folder.name)
    return removed


def remove_half_written(root: Path, name: str) -> None:
    """Remove what dead writers left of a clip, wherever they were; for whoever holds its claim."""
    for folder in (root / "clips").glob(f".{glob.escape(name)}.*.tmp"):
        if (found := ASIDE.fullmatch(folder.name)) and found["name"] == name:
            _discard(folder, name)


def _discard(folder: Path, name: str) -> None:
    """Remove it; but a finished clip whose writer was killed before the new one took its place goes back there."""
    if folder.name.endswith(OLD) and not (folder.parent / name).exists():
        os.rename(folder, folder.parent / name)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return socket.gethostname().replace(".", "_")
