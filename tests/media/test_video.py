"""Frames against the timestamps that the test chose, spans and other orders against the whole file."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from difftalk_pl.data.driven import back_and_forth
from difftalk_pl.media import video
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.video import FrameReader, SourceVideo, probe, read_frames
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
    "matroska.mkv": lambda path: moving(path, options=X264 | {"g": "12"}),
    "refreshed.ts": lambda path: moving(path, options={"g": "20", "x264-params": "intra-refresh=1"}),
    "broadcast.ts": lambda path: moving(path, options=X264 | {"g": "30"}, muxer={"output_ts_offset": "100"}),
    "mpeg2.ts": lambda path: moving(path, "mpeg2video", {"g": "12", "bf": "2"}),
    "old.avi": lambda path: moving(path, "mpeg4", {"g": "12", "bf": "2"}),
    "phone.mp4": lambda path: turned(moving(path, options=X264 | {"g": "12"})),
    "uneven.mp4": lambda path: moving(path, times=list(0.3 + np.cumsum(GAPS[:60])), rate=10, audio=chirp(1.0)),
    "program.mpg": lambda path: moving(path, "mpeg2video", {"g": "12", "bf": "2"}),
    "no_times.h264": lambda path: moving(path, options=X264 | {"g": "20"}),
}


def on_screen(times, end, fps=25):
    """By the definition, one comparison at a time: which frame is up at k / fps."""
    count = int(np.floor(end * fps + 0.5))
    return [max([i for i, time in enumerate(times) if time <= k / fps + 1e-6], default=0) for k in range(count)]


@pytest.mark.parametrize("rate", [24, 25, NTSC, 60])
def test_frame_on_screen_at_every_rate(tmp_path, rate):
    times = [round(i / rate * TICKS) / TICKS for i in range(int(4 * rate))]
    path = make(tmp_path / "v.mp4", times, rate=rate)
    assert [number_of(frame) for frame in read_frames(path)] == on_screen(times, times[-1] + float(1 / rate))
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (WIDTH, HEIGHT, False)
    assert info.duration == pytest.approx(times[-1] + float(1 / rate), abs=1e-3)
    assert info.rate == float(rate)


@pytest.mark.parametrize("fps", [25, 30])
def test_variable_rate_with_a_late_start(tmp_path, fps):
    times = list(0.3 + np.cumsum(GAPS))
    path = make(tmp_path / "v.mp4", times, rate=10, audio=chirp(1.0))  # audio begins at zero, so only frames are late
    shown = [number_of(frame) for frame in read_frames(path, fps)]
    with av.open(str(path)) as container:
        last, duration = max((packet.pts, packet.duration) for packet in container.demux(video=0) if packet.pts)
    assert shown == on_screen(times, (last + duration) / TICKS, fps)
    assert shown.count(0) > 5  # the first frame is up before its time


def test_real_variable_rate(real_clips):
    """vr_1 says 30 fps, has 135 frames in 6.1 s and starts at 33 ms; compared with a loop over its timestamps."""
    path = real_clips / "vr_1.mp4"
    with av.open(str(path)) as container:
        decoded = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    for k, frame in enumerate(read_frames(path)):
        if k % 10 == 0:
            up = max((i for i, (time, _) in enumerate(decoded) if time <= k / 25 + 1e-6), default=0)
            near = [i for i in (up - 1, up, up + 1) if 0 <= i < len(decoded)]
            assert up == min(near, key=lambda i: np.abs(frame.mean(axis=2) - decoded[i][1]).mean())
    assert k + 1 == 153 and probe(path).rate == 30


@pytest.mark.parametrize("kind", KINDS)
def test_spans_and_other_orders_have_the_pixels_of_the_whole(tmp_path, monkeypatch, kind):
    """However key frames lie, and whether the file can be searched by time or not."""
    path = KINDS[kind](tmp_path / kind)
    monkeypatch.setattr(video, "HELD_BYTES", 9 * TEXTURE.nbytes)
    for fps in (25, 60):
        source = SourceVideo(path, fps)
        whole = list(source.frames())
        n = len(whole)
        for first, last in [(0, 7), (1, 2), (n // 2, n // 2 + 20), (n - 9, n)]:
            span = list(read_frames(path, fps, first / fps, last / fps))
            assert len(span) == last - first and all(map(np.array_equal, span, whole[first:last]))
        order = [*back_and_forth(np.arange(2 * n), n), 7, 7, 6, 6, n - 1, 0, 0, 3, 20]
        for k, frame in zip(order, source.ordered(iter(order)), strict=True):
            assert np.array_equal(frame, whole[k]), f"frame {k} at {fps} fps"


def test_reading_backwards_holds_a_block_and_no_more(tmp_path, monkeypatch):
    """A frame of 256 pixels has 196 kB; the block is four of 200 frames."""
    path = tmp_path / "v.mp4"
    write_video(path, (np.full((256, 256, 3), i % 256, np.uint8) for i in range(200)))
    source = SourceVideo(path)
    monkeypatch.setattr(video, "HELD_BYTES", 4 * 256 * 256 * 3)
    tracemalloc.start()
    for _ in source.frames():
        pass
    assert tracemalloc.get_traced_memory()[1] < 10 * 256 * 256 * 3
    for k, frame in zip(range(199, -1, -1), source.ordered(range(199, -1, -1)), strict=True):
        assert abs(int(frame[9, 9, 1]) - k) < 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 256 * 256 * 3


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


def test_rotation_of_phones(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 255  # top left
    path = turned(make(tmp_path / "v.mp4", [0, 0.04], images=[image] * 2))
    frame = next(read_frames(path))
    assert frame.shape == (96, 64, 3) == (*probe(path)[1::-1], 3)
    bright = frame[..., 1] > 127
    assert bright[:48, 32:].mean() > 0.98 and bright.mean() == pytest.approx(0.25, abs=0.02)  # now top right


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


def test_reader_refuses_a_file_that_it_cannot_seek(tmp_path):
    write_video(tmp_path / "v.mp4", [numbered(i) for i in range(30)])
    with pytest.raises(MediaError, match=r"v\.mp4: not every frame is a key frame"):
        FrameReader(tmp_path / "v.mp4")


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
