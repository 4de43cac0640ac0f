"""Videos read a second time, back and forth, against the list of what `read_frames` gave."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from difftalk_pl.data.driven import back_and_forth
from difftalk_pl.media import source_video
from difftalk_pl.media.source_video import Cursor, SourceVideo
from difftalk_pl.media.video import MediaError, read_frames, source_rate, write_video
from tests.media.test_video import make

HEIGHT, WIDTH = 48, 80
YUV_BYTES = 64 * 48 * 3 // 2  # at the least: planes are padded
RNG = np.random.default_rng(0)
TEXTURE = RNG.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def pictures(count):
    """A texture that moves, so that every frame needs those before it."""
    return [np.roll(TEXTURE, (3 * i, i), (1, 0)) for i in range(count)]


def encoded(path, codec="libx264", options=None, count=70, container=None, muxer=None):
    """`count` frames at 25 fps by any encoder and muxer."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for i, image in enumerate(pictures(count)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def rotated(path):
    """A phone's video: the matrix of its header asks for a quarter turn."""
    make(path, [i / 30 for i in range(60)], rate=30, images=pictures(60))
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    matrix = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), header)
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def late_and_uneven(path):
    times = 0.3 + np.cumsum(np.random.default_rng(3).choice([0.013, 0.033, 0.05, 0.21], size=60))
    return make(path, list(times), rate=10, images=pictures(60), audio=np.zeros(16000, np.int16))


X264 = {"bf": "3", "sc_threshold": "0"}
KINDS = {
    "one key frame.mp4": lambda path: encoded(path, options=X264 | {"g": "250"}),
    "many key frames.mp4": lambda path: encoded(path, options=X264 | {"g": "10"}),
    "open groups.mp4": lambda path: encoded(path, options=X264 | {"g": "12", "x264-params": "open-gop=1"}),
    "refreshed.ts": lambda path: encoded(path, options={"g": "20", "x264-params": "intra-refresh=1"}),
    "broadcast.ts": lambda path: encoded(
        path, options=X264 | {"g": "30"}, container="mpegts", muxer={"output_ts_offset": "100"}
    ),
    "mpeg2.ts": lambda path: encoded(path, "mpeg2video", {"g": "12", "bf": "2"}, container="mpegts"),
    "open groups.ts": lambda path: encoded(path, options=X264 | {"g": "12", "x264-params": "open-gop=1"}),
    "motion.mkv": lambda path: encoded(path, options=X264 | {"g": "12"}),
    "every picture.mp4": lambda path: encoded(path, options={"g": "1"}),
    "phone.mp4": rotated,
    "uneven.mp4": late_and_uneven,
}


@pytest.fixture
def held(monkeypatch):
    """How many frames each block held."""
    counts, hold = [], SourceVideo._hold

    def counted(self, cursor, keys):
        frames = hold(self, cursor, keys)
        counts.append(len(frames))
        return frames

    monkeypatch.setattr(SourceVideo, "_hold", counted)
    return counts


@pytest.fixture
def restarts(monkeypatch):
    """How often a file was opened for an ordered pass."""
    opened, restart = [], Cursor._restart
    monkeypatch.setattr(Cursor, "_restart", lambda self: (opened.append(1), restart(self))[1])
    return opened


def check_back_and_forth(source, expected):
    n = len(expected)
    order = back_and_forth(np.arange(3 * n), n)
    seen = 0
    for k, frame in zip(order, source.ordered(order)):
        assert np.array_equal(frame, expected[k]), f"place {seen}, frame {k}"
        seen += 1
    assert seen == 3 * n


@pytest.mark.parametrize("fps", [25, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_back_and_forth(tmp_path, monkeypatch, held, restarts, kind, fps):
    monkeypatch.setattr(source_video, "HELD_BYTES", 9 * YUV_BYTES)
    path = KINDS[kind](tmp_path / kind)
    expected = list(read_frames(path, fps))
    source = SourceVideo(path, fps)
    for k, frame in enumerate(source.frames()):
        assert np.array_equal(frame, expected[k])
    assert len(source) == k + 1 == len(expected)
    check_back_and_forth(source, expected)
    assert 1 <= max(held) <= 9 and len(held) >= 5
    assert len(restarts) == 1  # seeking was enough


def test_without_timestamps_the_file_is_decoded_from_its_start(tmp_path, monkeypatch, restarts):
    monkeypatch.setattr(source_video, "HELD_BYTES", 9 * YUV_BYTES)
    path = encoded(tmp_path / "raw.h264", options=X264 | {"g": "20"}, count=30)
    expected = list(read_frames(path))
    source = SourceVideo(path)
    assert len(list(source.frames())) == len(expected)
    assert not source.keys.rising
    check_back_and_forth(source, expected)
    assert len(restarts) > 3


def test_a_seek_that_fails_ends_at_the_start_of_the_file(tmp_path, monkeypatch, restarts):
    monkeypatch.setattr(source_video, "HELD_BYTES", 9 * YUV_BYTES)
    monkeypatch.setattr(Cursor, "_seek", lambda self, pts: False)
    path = encoded(tmp_path / "v.mp4", options=X264 | {"g": "20"}, count=30)
    source = SourceVideo(path)
    expected = list(source.frames())
    check_back_and_forth(source, expected)
    assert len(restarts) > 3


@pytest.mark.parametrize(("name", "last"), [("vr_1", None), ("dfrf_french", 90), ("hdtf_aoc", 60)])
def test_real_clips(real_clips, monkeypatch, held, restarts, name, last):
    monkeypatch.setattr(source_video, "HELD_BYTES", 12_000_000)
    path = real_clips / f"{name}.mp4"
    source = SourceVideo(path)
    expected = list(source.frames(last))
    for frame, same in zip(expected, read_frames(path)):
        assert np.array_equal(frame, same)
    check_back_and_forth(source, expected)
    assert 1 < max(held) <= 12_000_000 // (512 * 512 * 3 // 2) and len(restarts) == 1


def test_any_order(tmp_path):
    path = encoded(tmp_path / "v.mp4", options=X264 | {"g": "10"}, count=40)
    source = SourceVideo(path)
    expected = list(source.frames())
    order = [*RNG.integers(0, 40, 60), 7, 7, 7, 6, 6, 39, 0, 0]
    for k, frame in zip(order, source.ordered(iter(order)), strict=True):
        assert np.array_equal(frame, expected[k])
    assert list(source.ordered([])) == []
    with pytest.raises(IndexError, match=r"v\.mp4: frames -1 to 40, of which 40 were read"):
        next(source.ordered([3, -1, 40]))


def test_the_first_frames_only(tmp_path):
    """Nothing is said of what is not read; a later, longer pass goes on noting where the first one ended."""
    path = tmp_path / "v.mp4"
    write_video(path, [RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(100)])
    whole = list(read_frames(path, 60))
    source = SourceVideo(path, 60)
    assert [len(list(source.frames(last))) for last in (0, 1, 50, 21)] == [0, 1, 50, 21]
    assert len(source) == 50
    assert len(list(source.frames())) == len(source) == 240
    check_back_and_forth(source, whole)
    assert len(list(source.frames(999))) == 240
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert all(map(np.array_equal, SourceVideo(path, 60).frames(60), whole))
    with pytest.raises(MediaError, match=r"v\.mp4: (breaks off|damaged)"):
        list(SourceVideo(path, 60).frames())


def test_a_file_that_changes_is_named(tmp_path):
    path = encoded(tmp_path / "v.mp4", count=30)
    source = SourceVideo(path)
    assert len(list(source.frames())) == 30
    encoded(path, count=10)
    with pytest.raises(MediaError, match=r"v\.mp4: cannot be decoded a second time"):
        list(source.ordered(range(30)))


@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 30, 60])
def test_usual_rates_are_exact(tmp_path, rate):
    times = [i / rate + (i % 2) * 1e-4 for i in range(50)]  # as a muxer rounds them
    path = make(tmp_path / "v.mp4", times, rate=rate, images=pictures(50))
    assert source_rate(path) == float(rate)


def test_an_uneven_rate_is_its_average(tmp_path, real_clips):
    assert source_rate(real_clips / "vr_1.mp4") == pytest.approx(135 / 6.1, rel=1e-3)
    with pytest.raises(MediaError, match=r"slow\.mp4: its headers say 2 frames a second, expected 5 to 120; give"):
        source_rate(make(tmp_path / "slow.mp4", [0, 0.5, 1, 1.5], rate=2, images=pictures(4)))
