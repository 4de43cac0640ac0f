"""What is read ahead lies in the page cache when it is needed."""

import os
import sys
import time
from pathlib import Path

import pytest

from difftalk_pl.data.latents import available_memory as memory_module
from difftalk_pl.data.latents import read_ahead
from difftalk_pl.data.latents.available_memory import available_memory
from difftalk_pl.data.latents.read_ahead import ReadAhead, give_up
from difftalk_pl.disk_costs import resident

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into Linux's page cache")
SIZE = 1 << 20


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Six files that are on the disk and not in memory."""
    paths = [tmp_path / f"{number}.bin" for number in range(6)]
    for path in paths:
        with path.open("wb") as file:
            file.write(os.urandom(SIZE))
            os.fsync(file.fileno())
        give_up(path)
    if max(map(resident, paths)) > 0:
        pytest.skip("this file system keeps files in memory")
    return paths


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_this_pool_and_the_next_are_read_and_no_other(files):
    ahead = ReadAhead(lambda clip: [files[clip]], len(files))
    ahead([0, 1], [4])
    wait_for(lambda: all(resident(files[number]) == 1 for number in (0, 1, 4)))
    assert [resident(files[number]) for number in (2, 3, 5)] == [0, 0, 0]
    ahead([4], [2])
    wait_for(lambda: resident(files[2]) == 1)
    assert resident(files[0]) == 1, "all fit: none is given up"


def test_what_is_over_is_given_up_where_not_all_fit(files, monkeypatch):
    monkeypatch.setattr(read_ahead, "available_memory", lambda: 3 * SIZE)
    ahead = ReadAhead(lambda clip: [files[clip]], len(files))
    ahead([0, 1], [2, 3])
    wait_for(lambda: all(resident(files[number]) == 1 for number in range(4)))
    ahead([2, 3], [1, 4])
    wait_for(lambda: resident(files[0]) == 0 and resident(files[4]) == 1)
    assert [resident(files[number]) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_file_that_is_gone_stops_nothing(files, tmp_path):
    ahead = ReadAhead(lambda clip: [tmp_path / "none", files[clip]], len(files))
    ahead([0], [1])
    wait_for(lambda: resident(files[0]) == 1 and resident(files[1]) == 1)


GB = 10**9


def group(folder: Path, limit: str, used: int, first_version: bool) -> None:
    """A control group's files, with one GB of page cache."""
    folder.mkdir(parents=True)
    names = ("limit_in_bytes", "usage_in_bytes") if first_version else ("max", "current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    total = "total_" if first_version else ""
    (folder / "memory.stat").write_text(f"anon 5\n{total}active_file {GB // 4}\n{total}inactive_file {GB * 3 // 4}\n")


@pytest.mark.parametrize("first_version", [True, False])
def test_a_jobs_limit_counts(tmp_path, monkeypatch, first_version):
    root = tmp_path / "memory" if first_version else tmp_path
    group(root / "jobs", str(10 * GB), 4 * GB, first_version)
    group(root / "jobs" / "step", "max" if not first_version else str(2**63 - 4096), GB, first_version)
    own = tmp_path / "own"
    own.write_text("3:cpuset:/other\n" + ("7:memory:/jobs/step\n" if first_version else "0::/jobs/step\n"))
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(memory_module, "GROUPS", tmp_path)
    monkeypatch.setattr(memory_module, "OWN", own)
    monkeypatch.setattr(memory_module, "MEMINFO", meminfo)
    for available, expected in ((30 * GB, 7 * GB), (2 * GB, 2 * GB)):
        meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:   {available // 1024} kB\n")
        assert available_memory() == pytest.approx(expected, abs=1024)
    meminfo.unlink()
    assert available_memory() is None
