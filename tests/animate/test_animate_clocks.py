"""Picture and sound of an animated video stay together, whatever clocks the inputs run on."""

import av
import numpy as np
import pytest

from difftalk_pl.animate.pipeline import TalkingHeadPipeline
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.generation.presets import choose_sampler
from difftalk_pl.media.audio import read_audio, write_wav
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video
from tests.test_animate import WEIGHTS

RATE = 44100
CLAPS = (0.6, 1.2)  # s


@pytest.fixture(scope="module")
def pipeline():
    return TalkingHeadPipeline.from_pretrained(WEIGHTS, device="cpu")


def claps(path, seconds=1.6):
    """A click at every clap, silence between."""
    sound = np.zeros(round(seconds * RATE), np.int16)
    for clap in CLAPS:
        start = round(clap * RATE)
        sound[start : start + RATE // 50] = np.random.default_rng(0).integers(-20000, 20000, RATE // 50)
    write_wav(path, sound, RATE)
    return path


def clapper(path, fps, seconds=1.6):
    """A face beside a board that is white for 0.12 s from every clap on."""
    talk = list(perform(seed=0, number=900, seconds=seconds).frames(256))

    def frame(number):
        time = number / fps
        light = any(clap <= time + 1e-6 < clap + 0.12 for clap in CLAPS)
        board = np.full((256, 64, 3), 255 if light else 0, np.uint8)
        return np.concatenate([talk[min(int(time * 25), len(talk) - 1)], board], axis=1)

    write_video(path, (frame(number) for number in range(round(seconds * fps))), fps=fps, crf=12)
    return path


def seen(path, fps):
    """When the board turns white, s."""
    light = np.array([frame[:, -40:].mean() > 128 for frame in read_frames(path, fps)])
    return (np.flatnonzero(light[1:] & ~light[:-1]) + 1) / fps


def heard(path):
    """When it clicks, s; what follows within a tenth of a second belongs to it."""
    loud = np.flatnonzero(np.abs(read_audio(path, RATE).astype(int)) > 4000) / RATE
    return loud[np.r_[True, np.diff(loud) > 0.1]]


@pytest.mark.parametrize(
    ("source_fps", "settings", "interpolation"),
    [(25, {}, 1), (30, {}, 1), (30, {"fps": "source"}, 1), (25, {}, 2)],
    ids=["25", "30 to 25", "30 kept", "25 to 50"],
)
def test_the_clap_is_seen_when_it_is_heard(pipeline, tmp_path, source_fps, settings, interpolation):
    video, sound = clapper(tmp_path / "clapper.mp4", source_fps), claps(tmp_path / "claps.wav")
    talking = pipeline(video, sound, choose_sampler("fast", steps=1), **settings)
    talking.save(tmp_path / "out.mp4", interpolation=interpolation)
    fps = talking.fps * interpolation
    times = seen(tmp_path / "out.mp4", fps), heard(tmp_path / "out.mp4")
    assert len(times[0]) == len(times[1]) == len(CLAPS)
    assert np.abs(times[0] - times[1]).max() <= 1 / talking.fps + 0.005
    assert np.abs(times[1] - CLAPS).max() < 0.01


def test_a_sound_track_that_starts_late_keeps_its_time(pipeline, tmp_path):
    """The driving sound as a track of a video that starts half a second after its clock."""
    video = clapper(tmp_path / "clapper.mp4", 25)
    late = tmp_path / "late.mka"
    with av.open(str(late), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        sound = np.zeros((1, RATE), np.int16)
        sound[0, round(0.1 * RATE) : round(0.12 * RATE)] = 20000
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, RATE // 2
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    talking = pipeline(video, late, choose_sampler("fast", steps=1))
    assert len(talking) == pytest.approx(1.5 * 25, abs=1)
    talking.save(tmp_path / "out.mp4")
    assert heard(tmp_path / "out.mp4")[0] == pytest.approx(0.6, abs=0.02)
