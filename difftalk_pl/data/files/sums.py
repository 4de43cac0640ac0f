"""Checksums beside the files that they are of, as `sha256sum` writes and checks them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.files import file_hash


def write_sums(listing: Path, files: Iterable[Path]) -> None:
    """Write the listing of files that lie in its folder or below."""
    put_sums(listing, {path.relative_to(listing.parent).as_posix(): file_hash(path) for path in files})


def add_sum(listing: Path, name: str, file: Path) -> None:
    """Enter one file that is to be called `name`, from the listing's folder, and keep the others."""
    put_sums(listing, {**read_sums(listing), name: file_hash(file)})


def read_sums(listing: Path) -> dict[str, str]:
    """SHA-256 by name, from the listing's folder; empty where there is no listing, and no line that cannot be read."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return {}
    pairs = (line.split("  ", 1) for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def check_sum(file: Path, sums: Mapping[str, str], name: str) -> None:
    """Read a whole file. Raises ValueError where it is another than the one that was written."""
    if name in sums and file_hash(file) != sums[name]:
        raise ValueError("its content is not what was written, by its SHA-256")


def put_sums(listing: Path, sums: Mapping[str, str]) -> None:
    """Write the listing of files whose SHA-256 are known."""
    with replacing(listing) as file:
        file.writelines(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
