"""Files are made here with PyAV alone, at timestamps of the test's choosing; every frame shows its number in binary."""

import itertools
import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from difftalk_pl.media.video import FrameReader, MediaError, fit_audio, probe, read_audio, read_frames, write_video

BITS, BLOCK = 10, 16
HEIGHT, WIDTH = 48, BITS * BLOCK
TICKS = 90_000


def numbered(number: int) -> np.ndarray:
    """A frame that shows its number in binary."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8), BLOCK)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    middles = frame[HEIGHT // 2, BLOCK // 2 :: BLOCK, 1]
    return sum(int(value > 127) << bit for bit, value in enumerate(middles))


def make(
    path, times, *, rate=25, images=None, audio=None, audio_rate=16000, audio_start=0.0, container=None, muxer=None
):
    """A video whose frame i is due at times[i] seconds; the last one stays for 1 / rate. audio: (N,) int16."""
    images = images if images is not None else [numbered(i) for i in range(len(times))]
    with av.open(str(path), "w", format=container, options=muxer or {}) as out:
        video = out.add_stream("libx264", rate=rate, options={"crf": "12", "g": "50", "bf": "3"})
        video.height, video.width, video.pix_fmt = *images[0].shape[:2], "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, TICKS)
        sound = out.add_stream("aac", rate=audio_rate, layout="mono") if audio is not None else None
        for time, image in zip(times, images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = audio_rate, Fraction(1, audio_rate)
            frame.pts = round(audio_start * audio_rate)
            out.mux([*sound.encode(frame), *sound.encode(None)])
    return path


def on_screen(times, end, fps=25):
    """By the definition, one comparison at a time: which frame is up at k / fps."""
    count = int(np.floor(end * fps + 0.5))
    return [max([i for i, time in enumerate(times) if time <= k / fps + 1e-6], default=0) for k in range(count)]


def chirp(seconds, rate=16000):
    """Speech-like enough to be aligned: a sweep with bursts."""
    t = np.arange(int(seconds * rate)) / rate
    tone, bursts = np.sin(2 * np.pi * (200 * t + 150 * t**2)), np.sin(2 * np.pi * 3 * t) > 0
    return (8000 * tone * (0.2 + bursts)).astype(np.int16)


def lag(a, b, reach=400):
    """Samples by which b comes later than a."""
    n = min(len(a), len(b)) - 2 * reach
    a, b = a.astype(float), b.astype(float)
    scores = [a[reach : reach + n] @ b[reach + s : reach + s + n] for s in range(-reach, reach + 1)]
    return int(np.argmax(scores)) - reach


@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 30, 60])
def test_frame_on_screen_at_every_rate(tmp_path, rate):
    times = [round(i / rate * TICKS) / TICKS for i in range(int(4 * rate))]
    path = make(tmp_path / "v.mp4", times, rate=rate)
    shown = [number_of(frame) for frame in read_frames(path)]
    assert shown == on_screen(times, times[-1] + float(1 / rate))
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (WIDTH, HEIGHT, False)
    assert info.duration == pytest.approx(times[-1] + float(1 / rate), abs=1e-3)
    assert info.rate == pytest.approx(float(rate), rel=0.02)


@pytest.mark.parametrize("fps", [25, 30])
def test_variable_rate_with_a_late_start(tmp_path, fps):
    gaps = np.random.default_rng(3).choice([0.013, 0.033, 0.05, 0.21], size=90)
    times = list(0.3 + np.cumsum(gaps))
    sound = chirp(1.0)  # begins at zero, so that the picture's start is late and not the file's
    path = make(tmp_path / "v.mp4", times, rate=10, audio=sound)
    shown = [number_of(frame) for frame in read_frames(path, fps)]
    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.duration) for packet in container.demux(video=0) if packet.pts is not None]
        last, duration = max(packets)
    assert shown == on_screen(times, (last + duration) / TICKS, fps)
    assert shown.count(0) > 5  # the first frame is up before its time


def test_broadcast_clock_starts_at_the_first_stream(tmp_path):
    times = [i / 25 for i in range(60)]
    path = make(tmp_path / "v.ts", times, container="mpegts", muxer={"output_ts_offset": "100"})
    with av.open(str(path)) as container:
        assert container.start_time >= 100 * 1_000_000  # us
    assert [number_of(frame) for frame in read_frames(path)] == list(range(60))


def test_reading_keeps_one_frame_in_memory(tmp_path):
    side, count = 256, 200
    path = tmp_path / "v.mp4"
    write_video(path, (np.full((side, side, 3), i % 256, np.uint8) for i in range(count)))
    tracemalloc.start()
    for _ in read_frames(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * side * side * 3


def test_rotation_of_phones(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 255  # top left
    path = make(tmp_path / "v.mp4", [i / 25 for i in range(10)], images=[image] * 10)
    quarter_clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    matrix = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), header)
    content[matrix : matrix + 36] = quarter_clockwise
    path.write_bytes(content)
    frame = next(read_frames(path))
    assert frame.shape == (96, 64, 3) == (*probe(path)[1::-1], 3)
    bright = frame[..., 1] > 127
    assert bright[:48, 32:].mean() > 0.98 and bright.mean() == pytest.approx(0.25, abs=0.02)  # now top right


@pytest.mark.parametrize("rate", [16000, 44100])
def test_written_sound_lies_where_it_was(tmp_path, rate):
    frames = 100
    sound = chirp(frames / 25, rate)
    write_video(tmp_path / "v.mp4", [numbered(i) for i in range(frames)], audio=sound, rate=rate)
    back = read_audio(tmp_path / "v.mp4", rate)
    assert 0 <= len(back) - len(sound) <= 1024
    assert abs(lag(sound, back)) <= 0.005 * rate
    assert np.corrcoef(sound[2000:-2000], back[2000 : len(sound) - 2000])[0, 1] > 0.97
    with av.open(str(tmp_path / "v.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert float(video.duration * video.time_base) == pytest.approx(
            float(audio.duration * audio.time_base), abs=0.07
        )


def test_sound_is_cut_and_padded_to_the_picture(tmp_path):
    for seconds in (1.0, 5.0):
        write_video(tmp_path / "v.mp4", [numbered(i) for i in range(50)], audio=chirp(seconds))
        back = read_audio(tmp_path / "v.mp4")
        assert 32000 <= len(back) <= 32000 + 1024
    assert np.array_equal(fit_audio(np.arange(5, dtype=np.int16), 3), [0, 1, 2])
    padded = fit_audio(np.arange(1, 4, dtype=np.int16), 5)
    assert np.array_equal(padded, [1, 2, 3, 0, 0]) and padded.dtype == np.int16


def test_late_sound_is_padded_and_resampled(tmp_path):
    """Sound of another rate that starts half a second in, against the same sweep computed at 16 kHz."""
    late = {"audio": chirp(2.0, 48000), "audio_rate": 48000, "audio_start": 0.5}
    back = read_audio(make(tmp_path / "v.mp4", [i / 25 for i in range(75)], **late))
    assert np.abs(back[:7000]).max() < 200
    expected = np.concatenate([np.zeros(8000, np.int16), chirp(2.0)])
    assert abs(lag(expected, back)) <= 80
    assert back.dtype == np.int16 and len(back) == pytest.approx(40000, abs=1024)


def test_stereo_is_mixed(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.tile(np.int16([[1000, 3000]]), (1, 16000)), format="s16", layout="stereo")
        frame.sample_rate = 16000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    assert np.abs(read_audio(tmp_path / "a.wav").astype(int) - 2000).max() <= 1


def test_reader_gives_every_frame_in_any_order(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (120, HEIGHT, WIDTH, 3))
    images = [np.clip(numbered(i) + noise[i], 0, 255).astype(np.uint8) for i in range(120)]
    assert write_video(tmp_path / "v.mp4", images, crf=8, intra=True) == 120
    one_by_one = list(read_frames(tmp_path / "v.mp4"))
    reader = FrameReader(tmp_path / "v.mp4")
    assert len(reader) == len(one_by_one) == 120
    for k in [*rng.permutation(120), *range(120), *reversed(range(120))]:
        assert number_of(reader[int(k)]) == k
        assert np.array_equal(reader[int(k)], one_by_one[k])
    for beyond in (-1, 120):
        with pytest.raises(IndexError, match=f"frame {beyond} of 120"):
            reader[beyond]
    reader.close()


def test_reader_refuses_a_file_that_it_cannot_seek(tmp_path):
    write_video(tmp_path / "v.mp4", [numbered(i) for i in range(30)])
    with pytest.raises(MediaError, match=r"v\.mp4: not every frame is a key frame"):
        FrameReader(tmp_path / "v.mp4")


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "v.mp4"
    assert write_video(path, [numbered(1)] * 5, tags={"made_by": "test"}) == 5
    before = path.read_bytes()
    with av.open(str(path)) as container:
        assert container.metadata["made_by"] == "test"
    assert before.index(b"moov") < before.index(b"mdat")  # starts to play before it is loaded

    def broken():
        yield from (numbered(i) for i in range(20))
        raise RuntimeError("camera fell down")

    with pytest.raises(RuntimeError, match="fell down"):
        write_video(path, broken())
    with pytest.raises(MediaError, match="no frames"):
        write_video(path, iter(()))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_files_are_named_with_their_cause(tmp_path):
    text, empty, missing = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "missing.mp4"
    text.write_text("this is no video\n" * 100)
    empty.touch()
    for path, function in itertools.product((text, empty, missing, tmp_path), (probe, read_audio, FrameReader)):
        with pytest.raises(MediaError, match=rf"{path.name}: unreadable"):
            function(path)
    with pytest.raises(MediaError, match=r"missing.mp4: unreadable: No such file"):
        next(read_frames(missing))
    mute = make(tmp_path / "mute.mp4", [0, 0.04, 0.08])
    with pytest.raises(MediaError, match=r"mute\.mp4: no audio track"):
        read_audio(mute)
    write_sound_only(tmp_path / "sound.m4a")
    with pytest.raises(MediaError, match=r"sound\.m4a: no video track"):
        probe(tmp_path / "sound.m4a")
    with pytest.raises(MediaError, match=r"sound\.m4a: no video track"):
        next(read_frames(tmp_path / "sound.m4a"))


def write_sound_only(path):
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(chirp(1.0)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        out.mux([*stream.encode(frame), *stream.encode(None)])


def test_a_file_cut_off_by_a_download_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "v.mp4"
    write_video(path, [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(100)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])  # its headers lie in front and are whole
    with pytest.raises(MediaError, match=r"v\.mp4: (breaks off at \d\.\d s of 4\.0 s|damaged)"):
        for _ in read_frames(path):
            pass


def test_real_variable_rate(real_clips):
    """vr_1 says 30 fps, has 135 frames in 6.1 s and starts at 33 ms; compared with a loop over its timestamps."""
    with av.open(str(real_clips / "vr_1.mp4")) as container:
        decoded = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    for k, frame in enumerate(read_frames(real_clips / "vr_1.mp4")):
        if k % 10 == 0:
            up = max((i for i, (time, _) in enumerate(decoded) if time <= k / 25 + 1e-6), default=0)
            near = [i for i in (up - 1, up, up + 1) if 0 <= i < len(decoded)]
            assert up == min(near, key=lambda i: np.abs(frame.mean(axis=2) - decoded[i][1]).mean())
    assert k + 1 == 153


def test_a_hole_in_the_sound_is_silence_and_moves_nothing(tmp_path):
    """A click at 3 s stays there when the packets from 1 to 2 s are lost."""
    rate, path = 16000, tmp_path / "hole.mkv"
    sound = np.zeros((1, 4 * rate), np.int16)
    sound[0, 3 * rate : 3 * rate + 20] = 20000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, sound.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(sound[:, start : start + 1024], format="s16", layout="mono")
            frame.rate, frame.pts = rate, start
            for packet in stream.encode(frame):
                if not 1 <= float(packet.pts * packet.time_base) < 2:
                    container.mux(packet)
        container.mux(stream.encode(None))
    heard = read_audio(path, rate)
    assert abs(int(np.abs(heard.astype(int)).argmax()) / rate - 3) < 0.005
    assert len(heard) / rate == pytest.approx(4, abs=0.1)
