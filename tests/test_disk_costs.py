"""Reading from a disk is measured with files that are not in memory."""

import os
import sys

import pytest

from difftalk_pl import disk_costs
from difftalk_pl.benchmark import benchmark
from difftalk_pl.data.latents.read_ahead import give_up
from difftalk_pl.disk_costs import cool, resident
from difftalk_pl.errors import UserError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into Linux's page cache")


@pytest.fixture
def disk(tmp_path):
    """A folder whose files can be taken out of memory."""
    path = tmp_path / "probe"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    assert resident(path) == 1
    give_up(path)
    if resident(path) > 0:
        pytest.skip("this file system keeps files in memory")
    with path.open("rb") as file:
        os.pread(file.fileno(), 1, 1 << 19)
    assert 0 < resident(path) < 1
    path.unlink()
    return tmp_path


def test_the_command_measures_every_way_and_leaves_nothing(disk, capsys, monkeypatch):
    monkeypatch.setattr(disk_costs, "READS", 50)
    benchmark(frames=200, workers=[0, 1], batch_size=8, real=0.06, folder=disk)
    printed = capsys.readouterr().out
    for text in ("shuffled", "clips, read ahead", "latents in memory", "cold", "warm", "MB/s", "24 KiB"):
        assert text in printed
    assert list(disk.iterdir()) == []


def test_files_that_stay_in_memory_are_no_cold_ones(disk, monkeypatch):
    path = disk / "kept.npy"
    path.write_bytes(os.urandom(1 << 16))
    monkeypatch.setattr(disk_costs, "give_up", lambda path: None)
    with pytest.raises(UserError, match="100% of the files stay in memory"):
        cool([path])


def test_more_than_fits_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"GB do not fit; give a smaller --real or another --folder"):
        benchmark(real=1e9, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
