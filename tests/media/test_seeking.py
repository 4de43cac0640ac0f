"""Spans of files against the same part of the whole, and pictures against the sound, far into a file."""

from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest

from difftalk_pl.media import seeking
from difftalk_pl.media.containers import open_media, video_stream
from difftalk_pl.media.seeking import seek_point
from difftalk_pl.media.sound import SoundReader
from difftalk_pl.media.video import MediaError, read_audio, read_frames, timeline
from tests.media.test_source_video import KINDS, X264, encoded
from tests.media.test_video import chirp, make

NTSC = Fraction(30000, 1001)
BITS, BLOCK = 14, 8  # of the numbers that the frames of a long video show
MORE = {
    "raw.h264": lambda path: encoded(path, options=X264 | {"g": "20"}),
    "program.mpg": lambda path: encoded(path, "mpeg2video", {"g": "12", "bf": "2"}),
    "old.avi": lambda path: encoded(path, "mpeg4", {"g": "12", "bf": "2"}),
    "fragments.mp4": lambda path: encoded(
        path, options=X264 | {"g": "12"}, muxer={"movflags": "frag_keyframe+empty_moov"}
    ),
    "open groups of hevc.mkv": lambda path: encoded(
        path, "libx265", {"g": "12", "x265-params": "open-gop=1:log-level=none"}
    ),
}


def spans(n, count, longest=None):
    """Random (first, last) of n frames."""
    rng = np.random.default_rng(n)
    for _ in range(count):
        first = int(rng.integers(0, n))
        yield first, int(rng.integers(first, n if longest is None else min(n, first + longest))) + 1


def same(frames, expected):
    frames = list(frames)
    return len(frames) == len(expected) and all(map(np.array_equal, frames, expected))


def long_video(path, seconds, claps):
    """29.97 frames a second that show their numbers; where a frame is to clap, so does the sound, at its time."""
    rate = 44100
    sound = np.zeros(seconds * rate, np.int16)
    for clap in claps:
        sound[round(clap / NTSC * rate) :][:20] = 30000
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=NTSC, options={"preset": "ultrafast", "crf": "20", "g": "900"})
        video.width, video.height, video.pix_fmt = BITS * BLOCK, 16, "yuv420p"
        track = out.add_stream("aac", rate=rate, layout="mono", bit_rate=64_000)
        shown = 0
        for second in range(seconds):
            while shown / NTSC < second + 1:
                bits = np.array([255 * (shown >> bit & 1) for bit in range(BITS)], np.uint8)
                image = np.broadcast_to(np.repeat(bits, BLOCK), (16 * 3 // 2, BITS * BLOCK)).copy()
                image[16:] = 128
                frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
                frame.pts, frame.time_base = shown, 1 / NTSC
                out.mux(video.encode(frame))
                shown += 1
            part = av.AudioFrame.from_ndarray(sound[None, second * rate :][:, :rate], format="s16", layout="mono")
            part.sample_rate, part.pts, part.time_base = rate, second * rate, Fraction(1, rate)
            out.mux(track.encode(part))
        out.mux([*video.encode(None), *track.encode(None)])
    return path


def number_in(frame):
    return sum(int(value > 127) << bit for bit, value in enumerate(frame[8, BLOCK // 2 :: BLOCK, 1]))


@pytest.mark.parametrize("kind", KINDS | MORE)
def test_a_span_has_the_pixels_of_the_whole(tmp_path, kind):
    path = (KINDS | MORE)[kind](tmp_path / kind)
    for fps in (25, 30):
        whole = list(read_frames(path, fps))
        for first, last in spans(len(whole), 6):
            assert same(read_frames(path, fps, first / fps, last / fps), whole[first:last])
            assert same(read_frames(path, fps, first / fps), whole[first:])


@pytest.mark.parametrize("clip", ["dfrf_french.mp4", "vr_1.mp4", "r3d_may.mp4"])
def test_spans_of_real_clips(real_clips, clip):
    path = real_clips / clip
    whole, sound = list(islice(read_frames(path), 150)), read_audio(path)
    for first, last in spans(len(whole), 4, longest=20):
        assert same(read_frames(path, 25, first / 25, last / 25), whole[first:last])
        assert np.array_equal(read_audio(path, 16000, first / 25, last / 25), sound[first * 640 : last * 640])


def test_far_into_a_file_picture_and_sound_stay_together(tmp_path):
    """After 5 minutes a count of frames at 30 a second would be 300 ms away."""
    clap = 9030
    path = long_video(tmp_path / "v.mp4", 310, [clap])
    time = clap / NTSC  # 301.301 s
    for start in (290.0, 300.04, 301.28):
        numbers = [number_in(frame) for frame in read_frames(path, 25, start, start + 2)]
        due = [int((Fraction(start).limit_denominator(1000) + Fraction(k, 25)) * NTSC) for k in range(50)]
        assert numbers == due
        sound = read_audio(path, 16000, start, 308)
        heard = start + int(np.argmax(np.abs(sound) > 8000)) / 16000
        assert heard == pytest.approx(float(time), abs=0.002)


def test_decoding_begins_at_the_key_frame_before(tmp_path):
    path = encoded(tmp_path / "v.mp4", options=X264 | {"g": "10"})
    with open_media(path) as container:
        decoded = [
            frame for frame, _ in timeline(container, video_stream(container, path), path, 25, start=2.2, stop=2.4)
        ]
    assert len(decoded) == 10  # 50 to 59


def test_where_only_the_beginning_will_do(tmp_path, monkeypatch):
    raw = encoded(tmp_path / "raw.h264", options=X264 | {"g": "20"})  # has no times
    assert seek_point(raw, Fraction(2)) is None
    path = encoded(tmp_path / "v.mp4", options=X264 | {"g": "10"})
    assert seek_point(path, Fraction(2)) is not None
    whole = list(read_frames(path))
    monkeypatch.setattr(seeking, "EARLIER", (Fraction(-1, 2),))  # a seek that lands beyond the time
    assert seek_point(path, Fraction(2)) is None
    assert same(read_frames(path, 25, 2.0, 2.4), whole[50:60])


@pytest.mark.parametrize(("source", "rate"), [(44100, 16000), (48000, 16000), (16000, 44100), (44100, 16001)])
def test_samples_are_those_of_the_whole(tmp_path, source, rate):
    """Whatever the rates, as samples of both seldom meet; silence before a late track stays."""
    path = make(
        tmp_path / "v.mp4", [i / 25 for i in range(50)], audio=chirp(8, source), audio_rate=source, audio_start=0.4
    )
    sound = read_audio(path, rate)
    for first, last in [(0, 0.1), (0.2, 1.0), (3.21, 3.22), (5.123457, 8.0), (7.9, 8.3)]:
        assert np.array_equal(read_audio(path, rate, first, last), sound[round(first * rate) : round(last * rate)])
    with SoundReader(path, rate, 6.5) as reader:
        assert np.array_equal(reader.take(1000), sound[round(6.5 * rate) :][:1000])
    assert np.abs(sound[round(0.5 * rate) : rate]).max() > 3000


def test_a_span_may_end_a_second_beyond_the_file(tmp_path):
    path = make(tmp_path / "v.mp4", [i / 25 for i in range(50)], audio=chirp(2))
    assert len(list(read_frames(path, 25, 1.0, 3.0))) == 25
    assert 16000 <= len(read_audio(path, 16000, 1.0, 3.0)) < 18000
    for start, stop, where in [(1.0, 3.5, "at 2.00 s"), (7.0, 7.5, "before that"), (7.0, None, "before that")]:
        with pytest.raises(MediaError, match=f"v.mp4: there is no span from {start:g} .*the video ends {where}"):
            list(read_frames(path, 25, start, stop))
        with pytest.raises(MediaError, match=f"v.mp4: there is no span from {start:g} .*the sound ends"):
            read_audio(path, 16000, start, stop)
