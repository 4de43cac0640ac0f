"""Frames against the timestamps that the test chose, spans and other orders against the whole file."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest

from difftalk_pl.data.driven import back_and_forth
from difftalk_pl.media import video
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.video import FrameReader, probe, read_frames, read_ordered
from difftalk_pl.media.writer import write_video
from tests.media.files import HEIGHT, TICKS, WIDTH, chirp, make, number_of, numbered, turned

NTSC = Fraction(30000, 1001)
TEXTURE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
X264 = {"bf": "3", "sc_threshold": "0"}
GAPS = np.random.default_rng(3).choice([0.013, 0.033, 0.05, 0.21], size=90)


def moving(path, codec="libx264", options=None, times=None, **others):
    """A texture that moves, so that every frame needs those before it."""
    times = [i / 25 for i in range(70)] if times is None else times
    images = [np.roll(TEXTURE, (3 * i, i), (1, 0)) for i in range(len(times))]
    return make(path, times, images=images, codec=codec, options=options, **others)


KINDS = {
    "one_key_frame.mp4": lambda path: moving(path, options=X264 | {"g": "250"}),
    "open_groups.mp4": lambda path: moving(path, options=X264 | {"g": "12", "x264-params": "open-gop=1"}),
    "refreshed.ts": lambda path: moving(path, options={"g": "20", "x264-params": "intra-refresh=1"}),
    "broadcast.ts": lambda path: moving(path, options=X264 | {"g": "30"}, muxer={"output_ts_offset": "100"}),
    "mpeg2.ts": lambda path: moving(path, "mpeg2video", {"g": "12", "bf": "2"}),
    "phone.mp4": lambda path: turned(moving(path, options=X264 | {"g": "12"})),
    "uneven.mp4": lambda path: moving(path, times=list(0.3 + np.cumsum(GAPS[:60])), rate=10, audio=chirp(1.0)),
    "no_times.h264": lambda path: moving(path, options=X264 | {"g": "20"}),
}


def on_screen(times, end, fps=25):
    """By the definition, one comparison at a time: which frame is up at k / fps."""
    count = int(np.floor(end * fps + 0.5))
    return [max([i for i, time in enumerate(times) if time <= k / fps + 1e-6], default=0) for k in range(count)]


@pytest.mark.parametrize("rate", [25, NTSC, None])
def test_the_frame_that_is_on_screen_is_shown(tmp_path, rate):
    """At constant rates, and at a variable one that starts after the audio."""
    times = [i / rate for i in range(int(4 * rate))] if rate else list(0.3 + np.cumsum(GAPS))
    path = make(tmp_path / "v.mp4", times, rate=rate or 10, audio=chirp(1.0))
    with av.open(str(path)) as container:
        last = max((packet.pts, packet.duration) for packet in container.demux(video=0) if packet.pts is not None)
    for fps in (25, 30):
        assert [number_of(frame) for frame in read_frames(path, fps)] == on_screen(times, sum(last) / TICKS, fps)
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (WIDTH, HEIGHT, True)
    assert rate is None or (info.rate, info.duration) == pytest.approx((float(rate), sum(last) / TICKS), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_spans_and_other_orders_have_the_pixels_of_the_whole(tmp_path, monkeypatch, kind):
    """However key frames lie, and whether the file can be searched by time or not."""
    path = KINDS[kind](tmp_path / kind)
    monkeypatch.setattr(video, "HELD_BYTES", 9 * TEXTURE.nbytes // 2)
    for fps in (25, 60) if kind == "uneven.mp4" else (25,):
        whole = list(read_frames(path, fps))
        n = len(whole)
        for first, last in [(0, 7), (1, 2), (n // 2, n // 2 + 20), (n - 9, n)]:
            span = list(read_frames(path, fps, first / fps, last / fps))
            assert len(span) == last - first and all(map(np.array_equal, span, whole[first:last]))
        order = [*back_and_forth(np.arange(2 * n), n), 7, 7, 6, 6, n - 1, 0, 0, 3, 20]
        for k, frame in zip(order, read_ordered(path, iter(order), fps), strict=True):
            assert np.array_equal(frame, whole[k]), f"frame {k} at {fps} fps"


def test_reading_backwards_holds_a_block_and_no_more(tmp_path, monkeypatch):
    path, side = tmp_path / "v.mp4", 64
    write_video(path, (np.full((side, side, 3), i, np.uint8) for i in range(200)))
    monkeypatch.setattr(video, "HELD_BYTES", 4 * side * side * 3 // 2)
    before = _held_frames()  # of other tests
    for k, frame in zip(range(199, -1, -1), read_ordered(path, range(199, -1, -1)), strict=True):
        assert abs(int(frame[9, 9, 1]) - k) < 4
        if k % 50 == 2:
            assert _held_frames() - before <= 4 + 4


def _held_frames() -> int:
    gc.collect()
    return sum(isinstance(held, av.VideoFrame) for held in gc.get_objects())


def test_a_span_may_end_a_second_beyond_the_file(tmp_path):
    path = moving(tmp_path / "v.mp4", times=[i / 25 for i in range(50)])
    assert len(list(read_frames(path, 25, 1.0, 3.0))) == 25
    for start, stop in [(1.0, 3.5), (7.0, 7.5), (7.0, None)]:
        with pytest.raises(MediaError, match=rf"v\.mp4: there is no span from {start:g} .*ends at 2\.00 s"):
            list(read_frames(path, 25, start, stop))


def test_only_the_first_frames_are_read_and_judged(tmp_path):
    """A download that was cut off is refused, but not for what nobody reads."""
    rng, path = np.random.default_rng(0), tmp_path / "v.mp4"
    write_video(path, [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(100)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])  # its headers lie in front and are whole
    assert [len(list(read_frames(path, 60, count=count))) for count in (0, 1, 50)] == [0, 1, 50]
    with pytest.raises(MediaError, match=r"v\.mp4: (breaks off at \d\.\d s of 4\.0 s|damaged)"):
        list(read_frames(path))


def test_reader_gives_every_frame_in_any_order(tmp_path):
    rng = np.random.default_rng(0)
    images = [
        np.clip(numbered(i) + rng.integers(0, 40, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8) for i in range(90)
    ]
    assert write_video(tmp_path / "v.mp4", images, crf=8, intra=True) == 90
    one_by_one = list(read_frames(tmp_path / "v.mp4"))
    reader = FrameReader(tmp_path / "v.mp4")
    assert len(reader) == len(one_by_one) == 90
    for k in [*rng.permutation(90), *range(5), *reversed(range(5))]:
        assert number_of(reader[int(k)]) == k
        assert np.array_equal(reader[int(k)], one_by_one[k])
    for beyond in (-1, 90):
        with pytest.raises(IndexError, match=f"frame {beyond} of 90"):
            reader[beyond]
    reader.close()
    write_video(tmp_path / "ordinary.mp4", images)
    with pytest.raises(MediaError, match=r"ordinary\.mp4: not every frame is a key frame"):
        FrameReader(tmp_path / "ordinary.mp4")


def test_bad_files_are_named_with_their_cause(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4", "missing.mp4"):
        for function in (probe, FrameReader, lambda path: next(read_frames(path))):
            with pytest.raises(MediaError, match=rf"{name}: unreadable"):
                function(tmp_path / name)
    with av.open(str(tmp_path / "audio.m4a"), "w", format="mp4") as out:
        out.mux(out.add_stream("aac", rate=16000, layout="mono").encode(None))
    with pytest.raises(MediaError, match=r"audio\.m4a: (no video track|unreadable)"):
        probe(tmp_path / "audio.m4a")
