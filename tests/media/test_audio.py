"""Audio at its time: against the samples that the test wrote, spans against the whole."""

import av
import numpy as np
import pytest

from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import read_audio, read_wav, write_wav
from difftalk_pl.media.files import MediaError
from tests.media.files import audio_frame, chirp, lag, make


def written(path, starts, codec="pcm_s16le", rate=16000, **options):
    """One second of audio at each of the starts, s. Returns that second."""
    part = chirp(1.0, rate)
    with av.open(str(path), "w", **options) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in starts:
            for first in range(0, rate, 1000):
                out.mux(stream.encode(audio_frame(part[first : first + 1000], rate, start + first / rate)))
        out.mux(stream.encode(None))
    return part


def test_every_sample_is_at_its_time(tmp_path):
    """PCM in Matroska keeps samples and times: late by 0.5 s, nothing from 1.5 to 2.25 s."""
    part = written(tmp_path / "a.mkv", [0.5, 2.25])
    heard = read_audio(tmp_path / "a.mkv")
    assert heard.dtype == np.int16 and len(heard) == 52000
    assert not heard[:8000].any() and not heard[24000:36000].any()
    assert np.array_equal(heard[8000:24000], part) and np.array_equal(heard[36000:52000], part)
    for start, stop in [(0.3, 0.7), (1.0, 2.5), (2.0, 3.0), (3.1, None)]:
        span = heard[round(start * 16000) : None if stop is None else round(stop * 16000)]
        assert np.array_equal(read_audio(tmp_path / "a.mkv", 16000, start, stop), span)


def test_a_broadcast_clock_starts_at_the_first_packet(tmp_path):
    """Its codec puts about 0.07 s of silence in front."""
    part = written(tmp_path / "a.ts", [0.0, 1.0], "mp2", 48000, options={"output_ts_offset": "100"}, format="mpegts")
    heard = read_audio(tmp_path / "a.ts", 48000)
    assert len(heard) == pytest.approx(96000, abs=5000)
    assert abs(lag(part, heard[:48000], 4000)) < 4000


@pytest.mark.parametrize(("source", "rate"), [(44100, 16000), (16000, 44100)])
def test_late_audio_is_padded_and_resampled(tmp_path, source, rate):
    """Against the same sweep computed at the wanted rate; a span lies within a sample of the same part of the whole."""
    late = {"audio": chirp(2.0, source), "hz": source, "late": 0.5}
    path = make(tmp_path / "v.mp4", [i / 25 for i in range(75)], **late)
    back = read_audio(path, rate)
    assert np.abs(back[: int(0.43 * rate)]).max() < 200
    expected = np.concatenate([np.zeros(rate // 2, np.int16), chirp(2.0, rate)])
    assert abs(lag(expected, back)) <= 0.005 * rate and len(back) == pytest.approx(2.5 * rate, abs=3000)
    for start, stop in [(0.2, 1.0), (1.123457, 2.0)]:
        span = read_audio(path, rate, start, stop)
        assert abs(lag(back[round(start * rate) : round(stop * rate)], span)) <= 1


def test_bad_audio_is_named(tmp_path):
    make(tmp_path / "mute.mp4", [0, 0.04])
    (tmp_path / "text.wav").write_text("no audio\n" * 100)
    for name, cause in (("mute.mp4", "no audio track"), ("text.wav", "unreadable"), ("x", "unreadable: No such file")):
        with pytest.raises(MediaError, match=rf"{name}: {cause}"):
            read_audio(tmp_path / name)
    written(tmp_path / "a.wav", [0.0, 1.0])
    assert len(read_audio(tmp_path / "a.wav", 16000, 1.0, 3.0)) == 16000
    for start, stop in [(1.0, 3.5), (7.0, 7.5), (7.0, None)]:
        with pytest.raises(MediaError, match=rf"a\.wav: there is no span from {start:g} "):
            read_audio(tmp_path / "a.wav", 16000, start, stop)


def test_wav_files_are_read_in_parts_and_held_against_their_clip(tmp_path):
    path, samples = tmp_path / "a.wav", chirp(1.0)
    write_wav(path, samples, 16000)
    assert np.array_equal(read_wav(path, 16000, 16000), samples)
    assert np.array_equal(read_wav(path, 16000, 16000, slice(640, 1280)), samples[640:1280])
    assert np.array_equal(read_audio(path), samples), "and by ffmpeg"
    for count, rate in ((15999, 16000), (16000, 44100)):
        with pytest.raises(UserError, match=r"a\.wav: int16 \(16000,\) at 16000 Hz, expected .*; remove its folder"):
            read_wav(path, count, rate)
    path.write_bytes(path.read_bytes()[:-4000])
    for broken in (path, tmp_path / "missing.wav"):
        with pytest.raises(UserError, match=r"\.wav: .*; remove its folder and prepare again"):
            read_wav(broken, 16000, 16000)
