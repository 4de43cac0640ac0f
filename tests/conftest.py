"""Fixtures that all rooms share."""

from pathlib import Path

import pytest

from difftalk_pl.data.synthetic.dataset import synthesize
from tests.runner import Runner

pytest_plugins = ("pytester", "tests.differences")

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


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn people, 3.2 s each, 64 px."""
    root = tmp_path_factory.mktemp("prepared")
    synthesize(root, clips=4, seconds=3.2, workers=1)
    return root


@pytest.fixture
def runner(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("WANDB_SILENT", "true")
    return Runner(tmp_path, prepared)


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """The checkpoint of a stage 1 run of a few steps, and latents made with it."""
    from difftalk_pl.training.codec import cache_latents

    small = Runner(tmp_path_factory.mktemp("codec"), prepared)
    small("fit", "autoencoder", "codec")
    cache_latents(prepared, small.checkpoint("codec"), workers=0, device="cpu")
    return small.checkpoint("codec")
