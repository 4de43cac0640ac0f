"""Several `prepare` commands on one dataset, as a cluster runs them: real processes, some of them killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from difftalk_pl.data.clips import open_clips, read_rows
from difftalk_pl.data.files.pool import run_jobs
from difftalk_pl.data.prepare import prepare
from tests.data.test_prepare import talk

CLIPS = 10
LOGGED = """
import os, sys, time
from pathlib import Path
from difftalk_pl.data import prepare as module
from difftalk_pl.data import source
from difftalk_pl.data.clips import write_clip

def noted(root, name, **rest):
    path = write_clip(root, name, **rest)
    with open(sys.argv[3], "a") as file:
        file.write(name + "\\n")
    return path

if __name__ != "__main__":  # in a worker
    source.write_clip = noted
else:
    module.prepare([Path(sys.argv[1])], Path(sys.argv[2]), size=64)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(CLIPS):
        talk(folder / f"talk_{number}.mp4", 4.0)
    return folder


def start(tmp_path: Path, videos: Path) -> subprocess.Popen:
    script = tmp_path / "run.py"
    script.write_text(LOGGED)
    command = [sys.executable, str(script), str(videos), str(tmp_path / "root"), str(tmp_path / "made.txt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)


def made(tmp_path: Path) -> list[str]:
    path = tmp_path / "made.txt"
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_four_on_one_dataset_two_of_them_killed(tmp_path, videos):
    """Each with a worker process of its own; the killed ones die with theirs, in the midst of their clips."""
    processes = [start(tmp_path, videos) for _ in range(4)]
    deadline = time.monotonic() + 120
    while len(made(tmp_path)) < 1:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)
    for process in processes[:2]:
        os.killpg(process.pid, signal.SIGKILL)
    assert [process.wait(timeout=200) for process in processes] == [-9, -9, 0, 0]
    root = tmp_path / "root"
    assert {row.name: (row.status, row.frames) for row in read_rows(root).values()} == {
        f"talk_{number}": ("ok", 100) for number in range(CLIPS)
    }
    assert set(Counter(made(tmp_path)).values()) == {1} and len(made(tmp_path)) == CLIPS
    assert sorted(path.name for path in (root / "clips").iterdir()) == sorted(f"talk_{n}" for n in range(CLIPS))
    for clip in open_clips(root):
        assert len(clip.reader()) == 100 and len(clip.audio()) == 64000 and clip.features("mfcc").shape == (200, 26)
    left = [path.name for path in (root / "claims").iterdir()]
    assert [name for name in left if not name.startswith(".")] == []  # hidden ones only tell the disk's time


def test_a_clip_whose_process_dies_is_tried_once_more(tmp_path, videos, monkeypatch):
    """Killed once it is made in the end; killed twice it is refused with the reason, and the others are made."""
    monkeypatch.setattr("difftalk_pl.data.prepare.run_jobs", killing({"talk_0": 1, "talk_1": 2}))
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        (few / f"talk_{number}.mp4").symlink_to(videos / f"talk_{number}.mp4")
    prepare([few], tmp_path / "root", size=64)
    rows = read_rows(tmp_path / "root")
    assert [row.status for row in rows.values()] == ["ok", "refused", "ok"]
    assert rows["talk_1"].reason == "its process died with exit code -9 (out of memory?)"


def killing(times: dict[str, int]):
    """run_jobs, whose worker is killed as soon as it shows that it works on such a clip."""
    left = dict(times)

    def run(function, jobs, workers):
        for event in run_jobs(function, jobs, workers):
            name = jobs[event.job].name
            if event.kind == "progress" and left.get(name, 0) > 0:
                left[name] -= 1
                kill_worker()
            yield event

    return run


def kill_worker() -> None:
    import multiprocessing

    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
