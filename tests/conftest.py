"""Fixtures that all rooms share."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SHARED = PROJECT.parent / "shared"


def _there(folder: Path) -> Path:
    if not folder.exists():
        pytest.skip(f"{folder} is not there: real clips and oracles are not part of the project")
    return folder


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """A folder of real videos, not part of the project."""
    return _there(SHARED / "clips")


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Numbers of the published networks, not part of the project."""
    return _there(SHARED / "oracles")
