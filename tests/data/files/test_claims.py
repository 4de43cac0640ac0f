"""Claims among real processes: one holder at a time, the dead give theirs up, whoever slept too long notices."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from difftalk_pl.data.files.claims import Claims, machine

HOLD = """
import sys, time
from pathlib import Path
from difftalk_pl.data.files.claims import Claims
with Claims(Path(sys.argv[1]), float(sys.argv[2])).take("clip.a"):
    print("held", flush=True)
    time.sleep(600)
"""
COUNT = """
import sys
from pathlib import Path
from difftalk_pl.data.files.claims import Claims
folder, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(50):
    with Claims(folder).turn("counter"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds clip.a with the given patience."""
    processes = []

    def hold(expire: float) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), str(expire)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def test_a_claim_is_one_process_s_until_it_is_given_back(tmp_path):
    claims = Claims(tmp_path)
    with claims.take("clip") as claim:
        assert claim.held() and not claim.after_dead and claims.take("clip") is None
        assert claims.busy() == {"clip"} and claims.take("clip.1") is not None
    assert claims.take("clip") is not None
    assert (tmp_path / "clip.0").read_text().split() == [machine(), str(os.getpid())]


def test_who_is_killed_on_this_machine_loses_its_claim_at_once(tmp_path, other):
    process, claims = other(600), Claims(tmp_path, 600)
    assert claims.take("clip.a") is None and claims.busy() == {"clip.a"}
    process.kill()
    deadline = time.monotonic() + 20
    while claims.busy():  # though nobody has waited for it
        assert time.monotonic() < deadline
    with claims.take("clip.a") as claim:
        assert claim.after_dead and [path.name for path in tmp_path.iterdir()] == ["clip.a.1"]
    assert list(tmp_path.iterdir()) == []


def test_who_shows_no_life_loses_its_claim_and_notices(tmp_path, other):
    """As seen from another machine: the process is there, and stopped."""
    process, claims = other(1.0), Claims(tmp_path, 1.0)
    time.sleep(1.5)
    assert claims.take("clip.a") is None  # it shows signs of life
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while (claim := claims.take("clip.a")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with claim:
        process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        assert claim.held() and claims.take("clip.a") is None


def test_a_holder_sees_that_another_took_over(tmp_path):
    claims = Claims(tmp_path, 0.2)
    slow = claims.take("clip")  # without its context it shows no sign of life
    time.sleep(0.3)
    with claims.take("clip") as fast:
        assert fast.held() and not slow.held()
        slow.release()
        assert fast.held() and claims.take("clip") is None


def test_claims_of_another_machine_live_by_their_time_alone(tmp_path):
    path = tmp_path / "clip.7"
    path.write_text("elsewhere 1\n")
    claims = Claims(tmp_path, 60)
    assert claims.take("clip") is None and claims.remove_dead() == []
    os.utime(path, (time.time() - 61,) * 2)
    assert claims.remove_dead() == ["clip"] and not path.exists()


def test_a_claim_that_changes_hands_while_another_looks_has_one_holder(tmp_path, monkeypatch):
    """Given back and taken anew between the other's look and its own claim, which would then have a higher number."""
    slow, fast = Claims(tmp_path), Claims(tmp_path)
    taken = [fast.take("clip")]
    look = slow._alive

    def meanwhile(paths):
        if len(taken) == 1:
            taken[0].release()
            taken.append(fast.take("clip"))
            return []
        return look(paths)

    monkeypatch.setattr(slow, "_alive", meanwhile)
    assert slow.take("clip") is None
    assert taken[1].held() and [path.name for path in tmp_path.iterdir()] == ["clip.0"]


def test_what_is_no_claim_is_nobodys_business(tmp_path):
    (tmp_path / "old.0").mkdir()
    (tmp_path / "Thumbs.db").write_bytes(b"\xff\xfe")
    (tmp_path / "list.7").write_bytes(b"\xff\xfe of mine")
    (tmp_path / "empty.0").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 600,) * 2)
    claims = Claims(tmp_path, 60)
    assert claims.busy() == set() and claims.dead() == ["empty"] == claims.remove_dead()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Thumbs.db", "list.7", "old.0"]


@pytest.mark.parametrize("name", ["folder/list.txt", "100%", "%2F", ".hidden"])
def test_names_may_hold_any_character(tmp_path, name):
    claims = Claims(tmp_path)
    with claims.take(name):
        assert claims.busy() == {name} and claims.take(name) is None and claims.dead() == []
    assert list(tmp_path.iterdir()) == []


def test_turns_of_four_processes_lose_nothing(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "claims"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "200"


def test_patience_ends(tmp_path, other):
    other(600)
    with pytest.raises(TimeoutError, match=r"clip\.a is held by others"), Claims(Path(tmp_path)).turn("clip.a", 0.2):
        pass
