"""Downloads by the real yt-dlp from a server on this machine that misbehaves."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("yt_dlp")

from difftalk_pl.__main__ import main
from difftalk_pl.data.hdtf import hdtf_download
from difftalk_pl.media.writer import write_video
from tests.data.hdtf_tables import write_tables
from tests.data.video_server import serving


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> bytes:
    """Two seconds of noise that cannot be compressed, some 500 KB."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    random = np.random.default_rng(0)
    write_video(path, (random.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(50)))
    return path.read_bytes()


@pytest.fixture
def server(film, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.1)))
    with serving(film) as server:
        yield server


def tables_of(folder: Path, server, *kinds: str) -> Path:
    return write_tables(
        folder, {f"RD/{kind.title()}": {"times": ["00:00-00:01"], "url": server.url(kind)} for kind in kinds}
    )


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "downloads.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_each_video_has_its_status_and_the_next_run_tries_only_what_failed(server, film, tmp_path, capsys):
    kinds = ("ok", "gone", "busy", "forbidden", "page", "cut")
    tables, out = tables_of(tmp_path / "tables", server, *kinds), tmp_path / "videos"
    hdtf_download(tables, out)
    found = {name.lower(): (row["status"], row["reason"]) for name, row in rows(out).items()}
    assert [kind for kind in kinds if found[kind] == ("done", "")] == ["ok", "busy", "cut"]
    for kind, reason in {"gone": "HTTP Error 404", "forbidden": "HTTP Error 403", "page": "Unsupported URL"}.items():
        assert found[kind][0] == "failed" and reason in found[kind][1]
    assert all((out / f"{kind.title()}.mp4").read_bytes() == film for kind in ("ok", "busy", "cut"))
    server.counts.clear()
    arguments = ["hdtf", "download", "--annotations", str(tables), "--out", str(out)]
    assert main([*arguments, "--only", "[Ok,Page]"]) == 0
    assert set(server.counts) == {"page"} and "1 of 2 videos failed" in capsys.readouterr().err.splitlines()[-1]
    assert main([*arguments, "--only", "Gone"]) == 1
    assert "no video could be downloaded" in capsys.readouterr().err.splitlines()[-1]
    assert set(server.counts) == {"page", "gone"} and len(rows(out)) == len(kinds)


def test_a_killed_download_continues_its_partial_file(server, film, tmp_path):
    tables, out = tables_of(tmp_path / "tables", server, "slow"), tmp_path / "videos"
    command = [sys.executable, "-m", "difftalk_pl", "hdtf", "download", "--annotations", tables, "--out", out]
    server.pause = 0.1
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size for part in out.glob("*.part")) < 50_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "Slow.mp4").exists() and not (out / "downloads.csv").exists()
    server.pause = 0.0
    server.ranges.clear()
    hdtf_download(tables, out)
    (start,) = [int(asked[6:-1]) for _, asked in server.ranges if asked]
    assert start > 40_000 and (out / "Slow.mp4").read_bytes() == film and rows(out)["Slow"]["status"] == "done"


def test_cookies_are_sent(server, tmp_path):
    tables, cookies = tables_of(tmp_path / "tables", server, "signed"), tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tAnna\n")
    hdtf_download(tables, tmp_path / "videos", cookies=cookies)
    assert rows(tmp_path / "videos")["Signed"]["status"] == "done"


def test_without_yt_dlp_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    tables = write_tables(tmp_path / "tables", {"RD/Anna": {"times": ["00:00-00:01"]}})
    assert main(["hdtf", "download", "--annotations", str(tables), "--out", str(tmp_path / "videos")]) == 1
    assert "pip install 'difftalk_pl[download]'" in capsys.readouterr().err
