"""The ledger: one whole file a video, and what may become of it."""

import json
import os
import subprocess
import sys
import time

import pytest

from difftalk_pl.data.hdtf.ledger import Ledger, Record, done

WRITER = """
import sys
from pathlib import Path
from difftalk_pl.data.hdtf.ledger import Ledger, Record
number = 0
while True:
    number += 1
    Ledger(Path(sys.argv[1])).write(Record("Anna", "failed", "x" * 50_000, number))
    print(number, flush=True)
"""


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def test_what_is_written_is_read_and_dated(ledger):
    assert ledger.read("Anna") == Record("Anna", "pending")
    written = ledger.write(Record("Anna", "failed", "HTTP Error 500", tries=3, remote=True))
    assert ledger.read("Anna") == written and written.when.endswith("+00:00") and written.tries == 3


def test_a_done_video_is_pending_again_when_its_file_is_not_the_same(ledger, tmp_path):
    (tmp_path / "Anna.mp4").write_bytes(b"12345")
    ledger.write(done("Anna", tmp_path / "Anna.mp4", (6.0, 64, 48), "https://example.org/a"))
    assert (ledger.read("Anna").state, ledger.read("Anna").width) == ("done", 64)
    (tmp_path / "Anna.mp4").write_bytes(b"1234")
    assert ledger.read("Anna").state == "pending" and "Anna.mp4 has been removed" in ledger.read("Anna").reason


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "Anna"', json.dumps({"name": "Anna", "colour": "red"})])
def test_what_is_no_record_counts_as_pending_and_is_named(text, ledger, caplog):
    ledger.write(Record("Anna", "gone"))
    ledger.path("Anna").write_text(text)
    assert ledger.read("Anna") == Record("Anna") and str(ledger.path("Anna")) in caplog.text


def test_a_writer_that_is_killed_leaves_a_whole_record(ledger, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    written = int((process.stdout.read().split() or ["20"])[-1])
    process.wait()
    record = ledger.read("Anna")
    assert record.tries in (written, written + 1) and len(record.reason) == 50_000


def test_cut_off_means_that_the_last_three_failed_for_want_of_a_server_and_not_long_ago(ledger):
    start = time.time() - 100
    for number, remote in enumerate((False, True, True, True)):
        ledger.write(Record(f"Anna{number}", "failed", remote=remote))
        os.utime(ledger.path(f"Anna{number}"), (start + number, start + number))
        assert ledger.is_cut_off() == (number == 3)
    assert not ledger.is_cut_off(within=50)
    ledger.write(Record("Anna4", "gone"))
    assert not ledger.is_cut_off()
