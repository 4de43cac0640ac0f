"""Text files that appear whole or not at all."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def replacing(path: Path, ready: Callable[[], None] = lambda: None) -> Iterator[TextIO]:
    """A text file that replaces `path` when it is complete.

    Args:
        ready: called then; what it raises keeps the file that was there.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # machines may share the folder
    try:
        with aside.open("w", newline="", encoding="utf-8") as file:
            yield file
        ready()
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
