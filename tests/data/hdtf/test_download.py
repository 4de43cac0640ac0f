"""Downloads from a server on this machine that misbehaves in every way, through the real yt-dlp; and their ledger."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("yt_dlp")

from difftalk_pl.__main__ import main
from difftalk_pl.data.hdtf.download import download_all
from difftalk_pl.data.hdtf.fetching import Job, Patience, fetch_video, read_cookies
from difftalk_pl.data.hdtf.ledger import Ledger, Record
from difftalk_pl.data.hdtf.tables import read_annotations
from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import read_audio
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video
from tests.data.hdtf.video_server import serving, write_tables

SECONDS = 6
HASTE = Patience(tries=3, first=0.01, longest=5)


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Six seconds of noise that cannot be compressed, with sound: some 500 KB."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    random = np.random.default_rng(0)
    frames = (random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(25 * SECONDS))
    sound = random.integers(-9000, 9000, 16000 * SECONDS, np.int16)
    write_video(path, frames, audio=sound)
    return path


@pytest.fixture
def server(film):
    with serving() as server:
        server.files["film.mp4"] = film.read_bytes()
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch one address as a video called Anna; as often as wanted."""

    def fetch(path: str, patience: Patience = HASTE, times: str = "00:01-00:05") -> Record:
        tables = write_tables(tmp_path / "tables", {"Anna": server.url(path)}, times)
        folder = tmp_path / "videos"
        before = Ledger(folder).read("Anna")
        record = fetch_video(Job(read_annotations(tables)[0], folder, before, patience), lambda *_: None)
        assert record is not None and record == Ledger(folder).read("Anna")
        return record

    return fetch


@pytest.mark.parametrize("kind", ["ok", "busy", "cut", "short"])
def test_what_can_be_had_is_had_whole(kind, fetch, server, film, tmp_path):
    record = fetch(f"{kind}/film.mp4")
    assert (record.state, record.file, record.width, record.reason) == ("done", "Anna.mp4", 64, "")
    assert record.seconds == pytest.approx(SECONDS, abs=0.05) and record.when
    assert (tmp_path / "videos" / "Anna.mp4").read_bytes() == film.read_bytes()
    assert record.tries == {"ok": 1, "busy": 3, "cut": 2, "short": 2}[kind]
    went_on = [asked for asked in server.ranges(f"{kind}/film.mp4") if asked]
    assert len(went_on) == (kind == "cut") and "bytes=0-" not in went_on
    assert not (tmp_path / "videos" / ".partial" / "Anna").exists()


@pytest.mark.parametrize(
    "path, state, reason, tries",
    [
        ("gone/film.mp4", "gone", "HTTP Error 404", 1),
        ("removed/film.mp4", "gone", "HTTP Error 410", 1),
        ("forbidden/film.mp4", "failed", "HTTP Error 403", 1),
        ("broken/film.mp4", "failed", "HTTP Error 500", 3),
        ("later/film.mp4", "failed", "HTTP Error 429.*asks to wait 3600 s", 1),
        ("page/film.mp4", "failed", "Unsupported URL", 1),
        ("lie/film.mp4", "failed", "what came is no whole video: mp4.mp4: unreadable", 2),
    ],
)
def test_what_cannot_be_had_says_why(path, state, reason, tries, fetch, tmp_path):
    record = fetch(path)
    assert (record.state, record.tries, record.file) == (state, tries, "")
    assert re.match(reason, record.reason)
    assert not list((tmp_path / "videos").glob("Anna.*"))


@pytest.mark.parametrize("content", [b"", b"no film"])
def test_a_download_that_was_damaged_since_is_fetched_again(content, fetch, film, tmp_path):
    fetch("ok/film.mp4")
    path = tmp_path / "videos" / "Anna.mp4"
    path.write_bytes(content)
    assert Ledger(path.parent).read("Anna").reason == "Anna.mp4 has been removed or changed"
    assert fetch("ok/film.mp4").state == "done" and path.read_bytes() == film.read_bytes()
    assert (tmp_path / "videos" / "Anna.mp4.damaged").read_bytes() == content


def test_a_damaged_file_of_somebody_stays(fetch, tmp_path):
    path = tmp_path / "videos" / "Anna.mp4"
    path.parent.mkdir()
    path.write_bytes(b"no film")
    record = fetch("ok/film.mp4")
    assert record.state == "failed" and record.reason.endswith(
        "; remove or replace it, and the same command fetches the video"
    )
    assert path.read_bytes() == b"no film"


def test_a_full_disk_is_named_and_leaves_room_for_others(fetch, tmp_path, monkeypatch):
    def full(self, name, info):
        with open(name, "wb") as file:
            file.write(bytes(1000))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yt_dlp.YoutubeDL.dl", full)
    record = fetch("ok/film.mp4")
    assert (record.state, record.tries) == ("failed", 1) and record.reason.endswith("videos: No space left on device")
    assert not (tmp_path / "videos" / ".partial" / "Anna").exists()


def test_a_ledger_that_cannot_be_written_stops_nobody(tmp_path, caplog):
    (tmp_path / "ledger").write_text("no folder")
    assert Ledger(tmp_path).note(Record("Anna", "failed")).state == "failed"
    assert "Anna.json: cannot be written" in caplog.text


def test_a_dead_server_is_named(fetch, server):
    server.server_close()
    assert fetch("ok/film.mp4").reason.startswith("no connection: ")


def test_a_video_that_ends_before_its_last_clip_is_not_the_one(fetch, tmp_path):
    record = fetch("ok/film.mp4", times="00:01-00:03 00:20-00:30")
    assert (record.state, record.tries) == ("failed", 1) and "ends at 6.0 s and its last clip at 30 s" in record.reason
    assert not list((tmp_path / "videos").glob("Anna.*")) and not (tmp_path / "videos" / ".partial" / "Anna").exists()


def test_picture_and_sound_that_come_apart_are_put_together_without_ffmpeg(fetch, server, film, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    _split(film, tmp_path, server)
    record = fetch("dash/film.mpd")
    assert (record.state, record.reason) == ("done", "")
    together = tmp_path / "videos" / record.file
    for one, other in zip(read_frames(together), read_frames(film), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(read_audio(together), read_audio(film))


def _split(film, folder, server):
    """The film's picture with no sound, and its sound alone, as the server's files."""
    import av

    for name, kind in (("picture.mp4", "video"), ("sound.m4a", "audio")):
        with av.open(film) as source, av.open(folder / name, "w", format="mp4") as target:
            stream = next(one for one in source.streams if one.type == kind)
            track = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = track
                    target.mux(packet)
        server.files[name] = (folder / name).read_bytes()


def test_one_run_brings_each_to_its_state_and_the_next_one_tries_only_what_failed(server, tmp_path, capsys):
    kinds = ("ok", "gone", "busy", "page", "broken", "cut")
    tables = write_tables(tmp_path / "tables", {kind.title(): server.url(f"{kind}/film.mp4") for kind in kinds})
    videos, folder = read_annotations(tables), tmp_path / "videos"
    download_all(videos, folder, 2, HASTE)
    states = {kind: Ledger(folder).read(kind.title()).state for kind in kinds}
    assert states == {"ok": "done", "gone": "gone", "busy": "done", "page": "failed", "broken": "failed", "cut": "done"}
    server.requests.clear()
    arguments = ["hdtf", "download", "--annotations", str(tables), "--folder", str(folder), "--retries", "0"]
    assert main([*arguments, "--only", "[Ok,Gone]"]) == 0 and not server.requests
    assert "gone: Gone; --retry-gone asks" in capsys.readouterr().out
    assert main([*arguments, "--only", "[Ok,Gone,Page]", "--retry-gone"]) == 1
    assert {path for path, _ in server.requests} == {"/gone/film.mp4", "/page/film.mp4"}
    said = capsys.readouterr()
    assert "1 of 3 videos are not there" in said.err and "failed Page (2 tries" in said.out


def test_a_killed_download_goes_on_where_it_was(server, film, tmp_path):
    tables = write_tables(tmp_path / "tables", {"Anna": server.url("slow/film.mp4")})
    folder = tmp_path / "videos"
    command = [sys.executable, "-m", "difftalk_pl", "hdtf", "download", "--annotations", tables, "--folder", folder]
    server.pause = 0.3
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: sum(part.stat().st_size for part in folder.glob(".partial/Anna/*.part")) > 50_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Ledger(folder).read("Anna").state == "pending" and not list(folder.glob("Anna.*"))
    server.pause = 0.0
    server.requests.clear()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (start,) = [int(asked[6:-1]) for asked in server.ranges("slow/film.mp4") if asked]
    assert start > 50_000 and (folder / "Anna.mp4").read_bytes() == film.read_bytes()
    assert Ledger(folder).read("Anna").state == "done" and "RD" in done.stdout


def test_ctrl_c_stops_and_says_how_to_go_on(server, tmp_path):
    tables = write_tables(tmp_path / "tables", {"Anna": server.url("slow/film.mp4")})
    folder = tmp_path / "videos"
    server.pause = 0.3
    command = [sys.executable, "-m", "difftalk_pl", "hdtf", "download", "--annotations", tables, "--folder", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _until(lambda: list(folder.glob(".partial/Anna/*.part")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    assert Ledger(folder).claims.busy() == set() and list(folder.glob(".partial/Anna/*.part"))


def test_several_downloads_share_a_folder_and_fetch_each_video_once(server, tmp_path):
    names = [f"Anna{number}" for number in range(3)]
    tables = write_tables(tmp_path / "tables", {name: server.url(f"ok/{name}") for name in names})
    server.files |= dict.fromkeys(names, server.files["film.mp4"])
    command = [sys.executable, "-m", "difftalk_pl", "hdtf", "download", "--annotations", tables]
    command += ["--folder", tmp_path / "videos"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [server.counts[f"/ok/{name}"] for name in names] == [2] * 3  # a look at the address, and the data
    assert {Ledger(tmp_path / "videos").read(name).state for name in names} == {"done"}


def _until(happens):
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_where_no_server_answers_the_fourth_video_is_tried_once_only(server, tmp_path):
    tables = write_tables(tmp_path / "tables", {f"Anna{k}": server.url("broken/film.mp4") for k in range(5)})
    download_all(read_annotations(tables), tmp_path / "videos", 1, HASTE)
    ledger = Ledger(tmp_path / "videos")
    assert [ledger.read(f"Anna{k}").tries for k in range(5)] == [3, 3, 3, 1, 1] and ledger.is_cut_off()


def test_without_yt_dlp_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tables = write_tables(tmp_path / "tables", {"Anna": "https://example.org/a"})
    assert main(["hdtf", "download", "--annotations", str(tables), "--folder", str(tmp_path / "videos")]) == 1
    assert "pip install 'difftalk_pl[download]'" in capsys.readouterr().err


def test_cookies_are_sent_and_their_file_is_left_alone(server, tmp_path):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tAnna\n")
    before = cookies.read_text()
    tables = write_tables(tmp_path / "tables", {"Anna": server.url("signed/film.mp4")})
    job = Job(read_annotations(tables)[0], tmp_path / "videos", Record("Anna"), HASTE, None, read_cookies(cookies))
    assert fetch_video(job, lambda *_: None).state == "done" and cookies.read_text() == before
    for content in ("<html>", "\udcff"):
        cookies.write_text(content, errors="surrogateescape")
        with pytest.raises(UserError, match=r"cookies\.txt: no file of cookies"):
            read_cookies(cookies)


def test_a_video_that_was_gone_is_taken_when_somebody_brings_it(server, film, tmp_path):
    tables, folder = write_tables(tmp_path / "tables", {"Anna": server.url("gone/film.mp4")}), tmp_path / "videos"
    Ledger(folder).write(Record("Anna", "gone", "HTTP Error 404"))
    (folder / "Anna.mp4").write_bytes(film.read_bytes())
    download_all(read_annotations(tables), folder, 1, HASTE)
    assert Ledger(folder).read("Anna").state == "done" and not server.requests
