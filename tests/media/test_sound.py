"""Sound as a stream, against the same sound as a whole; the whole is held against what was written in test_video."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from difftalk_pl.data.features.mfcc import MFCC
from difftalk_pl.media.sound import SoundReader
from difftalk_pl.media.video import MediaError, read_audio, write_video
from tests.media.test_video import chirp, lag, make, numbered


def written(path, starts, codec="pcm_s16le", rate=16000, container=None, dropped=()):
    """One second of sound at each of the starts, s. Returns what should be heard from the first start on."""
    part = chirp(1.0, rate)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in starts:
            for first in range(0, rate, 1000):
                frame = av.AudioFrame.from_ndarray(part[None, first : first + 1000], format="s16", layout="mono")
                frame.rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(start * rate) + first
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return part


def test_every_sample_is_at_its_time(tmp_path):
    """PCM in Matroska keeps samples and times: late by 0.5 s, silent from 1.5 to 2.25 s."""
    part = written(tmp_path / "a.mkv", [0.5, 2.25])
    with SoundReader(tmp_path / "a.mkv") as reader:
        heard = reader.take(5 * 16000)
    assert np.abs(heard[:8000]).max() == 0
    assert np.array_equal(heard[8000:24000], part)
    assert np.abs(heard[24000:36000]).max() == 0
    assert np.array_equal(heard[36000:52000], part)
    assert np.abs(heard[52000:]).max() == 0 and heard.dtype == np.int16
    assert len(read_audio(tmp_path / "a.mkv")) == 52000


def test_sound_before_zero_is_cut(tmp_path, monkeypatch):
    """The clock is moved, because muxers avoid negative times."""
    part = written(tmp_path / "a.mkv", [0.0])
    for early in (0.25, 1.5):
        monkeypatch.setattr("difftalk_pl.media.sound.clock_zero", lambda _, early=early: Fraction(early))
        expected = part[int(early * 16000) :]
        assert np.array_equal(read_audio(tmp_path / "a.mkv"), expected)
        with SoundReader(tmp_path / "a.mkv") as reader:
            assert np.array_equal(reader.take(len(expected) + 10)[: len(expected)], expected)


def test_sound_that_jumps_back_keeps_what_came_first(tmp_path, monkeypatch):
    times = iter([Fraction(k, 16) for k in (0, 1, 2, 1, 2, 3)])
    monkeypatch.setattr("difftalk_pl.media.sound.time_of", lambda *_: next(times))
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for k in range(6):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1000), k, np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = 16000, 1000 * k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert read_audio(tmp_path / "a.mkv")[::1000].tolist() == [0, 1, 2, 5]


def with_late_sound(path):
    return make(path, [i / 25 for i in range(75)], audio=chirp(2.0, 48000), audio_rate=48000, audio_start=0.5)


def with_coded_sound(path):
    frames = [numbered(i) for i in range(60)]
    write_video(path, frames, audio=chirp(2.4, 44100), rate=44100)
    return path


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("kind", [with_late_sound, with_coded_sound])
def test_parts_make_the_whole(tmp_path, kind, rate):
    path = kind(tmp_path / "v.mp4")
    whole = read_audio(path, rate)
    sizes = np.random.default_rng(0).choice([0, 1, 7, 640, 1764, 5000], size=90)
    with SoundReader(path, rate) as reader:
        parts = [reader.take(int(n)) for n in sizes]
    assert [len(part) for part in parts] == sizes.tolist()
    heard = np.concatenate(parts)
    assert len(heard) > len(whole) > 2 * rate
    assert np.array_equal(heard[: len(whole)], whole) and not heard[len(whole) :].any()


@pytest.mark.parametrize("name", ["dfrf_french.mp4", "hdtf_aoc.mp4", "speech_en.wav"])
def test_parts_of_real_clips(real_clips, name):
    whole = read_audio(real_clips / name)
    with SoundReader(real_clips / name, 16000) as reader:
        for start in range(0, len(whole), 640):
            expected = whole[start : start + 640]
            assert np.array_equal(reader.take(640)[: len(expected)], expected)


def test_a_long_sound_takes_no_memory(tmp_path):
    """60 s at 48 kHz are 5.8 MB; a hole of a day is silence that nobody holds."""
    path = tmp_path / "a.mkv"
    written(path, [*range(60), 24 * 3600])
    tracemalloc.start()
    with SoundReader(path, 48000) as reader:
        for _ in range(59 * 25):
            assert reader.take(1920).any()
        for _ in range(100):
            reader.take(1920)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def sound_packets(path):
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0)]


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_written_from_a_stream_as_from_memory(tmp_path, seconds):
    """Sound that is too short is padded, and too long is cut, to the very same packets."""
    sound = make(tmp_path / "sound.mp4", [0, 0.04], audio=chirp(seconds, 44100), audio_rate=44100)
    frames = [numbered(i) for i in range(50)]
    write_video(tmp_path / "whole.mp4", frames, audio=read_audio(sound, 44100), rate=44100)
    with SoundReader(sound, 44100) as reader:
        write_video(tmp_path / "parts.mp4", frames, audio=reader, rate=44100)
    assert sound_packets(tmp_path / "parts.mp4") == sound_packets(tmp_path / "whole.mp4")
    heard = read_audio(tmp_path / "parts.mp4")
    assert 32000 <= len(heard) <= 32000 + 1024
    assert abs(lag(chirp(1.0), heard[:16000])) <= 80


def test_bad_sounds_are_named(tmp_path):
    mute = make(tmp_path / "mute.mp4", [0, 0.04])
    (tmp_path / "text.wav").write_text("no sound\n" * 100)
    for path, cause in (
        (mute, "no audio track"),
        (tmp_path / "text.wav", "unreadable"),
        (tmp_path / "x", "unreadable"),
    ):
        with pytest.raises(MediaError, match=rf"{path.name}: {cause}"):
            SoundReader(path, 16000)
        with pytest.raises(MediaError, match=rf"{path.name}: {cause}"):
            read_audio(path)


def whole_coefficients(samples):
    """MFCC of the whole sound at once, by the library alone."""
    from python_speech_features import mfcc

    signal = np.pad(samples + np.random.default_rng(0).standard_normal(len(samples)), 200, mode="reflect")
    found = mfcc(signal, 16000, numcep=26)[::2][: 2 * (len(samples) // 640)]
    return (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1.0)


@pytest.mark.parametrize("samples", [640, 1279, 160000, 160200, 160201, 160640, 320399, 500123])
def test_features_in_parts_are_those_of_the_whole(samples):
    rng = np.random.default_rng(samples)
    sound = (3000 * rng.standard_normal(samples) * np.sin(np.arange(samples) / 5000)).astype(np.int16)
    np.testing.assert_allclose(MFCC()(sound), whole_coefficients(sound), atol=1e-6)


def test_features_of_ten_minutes_take_little_memory():
    sound = np.random.default_rng(0).integers(-9000, 9000, 600 * 16000).astype(np.int16)
    MFCC()(sound[:16000])  # what the library imports
    tracemalloc.start()
    assert MFCC()(sound).shape == (30000, 26)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000  # the steps alone are 6 MB; the windows of all of them would be 200 MB
