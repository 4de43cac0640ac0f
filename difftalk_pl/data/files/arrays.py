"""Memory-mapping `.npy` files that somebody else may have written, or a crash cut short."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

NUMBERS = "fiu"  # kinds of dtypes


def map_array(path: Path) -> np.ndarray:
    """Map an array of real numbers; nothing is read but its header.

    A header that promises more than the file holds is refused before any memory is asked for.

    Raises:
        OSError: there is no such file.
        ValueError: damaged, or something else than an array of numbers; says what.
    """
    try:
        with np.errstate(over="ignore"):  # of a size that cannot be
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OverflowError, BadZipFile) as error:
        raise ValueError(str(error)) from error
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays, expected a single one")
    if array.dtype.kind not in NUMBERS:
        raise ValueError(f"it holds {array.dtype}, expected numbers")
    return array
