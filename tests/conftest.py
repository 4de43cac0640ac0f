"""Fixtures that all packages share."""

import os
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
def fits(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Runner:
    """The runner in whose folder the session's fits lie, for tests that only read them."""
    os.environ.setdefault("WANDB_SILENT", "true")
    return Runner(tmp_path_factory.mktemp("fits"), prepared)


@pytest.fixture(scope="session")
def fitted_autoencoder(fits: Runner) -> Path:
    """The run folder of a stage 1 fit of a few steps."""
    fits("fit", "autoencoder", "autoencoder")
    return fits.folder / "autoencoder"


@pytest.fixture(scope="session")
def codec(fits: Runner, fitted_autoencoder: Path) -> Path:
    """The checkpoint of that fit; the latents of `prepared` are cached with it."""
    from difftalk_pl.training.cache_latents import cache_latents

    cache_latents(fits.data, fits.checkpoint("autoencoder"), workers=0)
    return fits.checkpoint("autoencoder")


@pytest.fixture(scope="session")
def fitted_diffusion(fits: Runner, codec: Path) -> Path:
    """The run folder of a stage 2 fit of a few steps on cached latents."""
    fits("fit", "diffusion", "diffusion", {"model": {"init_args": {"autoencoder": str(codec)}}})
    return fits.folder / "diffusion"


@pytest.fixture(scope="session")
def fitted_syncnet(fits: Runner) -> Path:
    """The run folder of a SyncNet fit of a few steps."""
    fits("fit", "syncnet", "syncnet")
    return fits.folder / "syncnet"
