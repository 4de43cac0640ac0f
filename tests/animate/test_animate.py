"""The pipeline and the command on drawn faces that dlib finds: lengths, clocks, surroundings, files, jobs, errors."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from difftalk_pl.animate.command import animate
from difftalk_pl.animate.paste import blend_region
from difftalk_pl.animate.pipeline import TalkingHeadPipeline
from difftalk_pl.animate.watermark import read_mark
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.opening import dark_opening, true_opening
from difftalk_pl.generation.sampler import choose_sampler
from difftalk_pl.media.audio import read_audio, write_wav
from difftalk_pl.media.video import probe, read_frames
from difftalk_pl.media.writer import TAG, read_tags, write_video
from tests.conftest import PROJECT

WEIGHTS = PROJECT / "experiments" / "demo" / "weights"
QUICK = {"sampler": "dpm++", "steps": 1, "workers": 0, "device": "cpu"}
ONE_STEP = choose_sampler("fast", steps=1)
WIDTH, HEIGHT, LEFT, TOP = 421, 301, 120, 31  # of a frame with odd sides, and where the drawn face stands in it
RATE = 44100
CLAPS = (0.4, 0.8)  # s


@pytest.fixture(scope="module")
def pipeline():
    return TalkingHeadPipeline.from_pretrained(WEIGHTS, device="cpu")


def in_larger_frame(frame):
    """A 256 px face in a larger picture with a pattern."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    whole = np.stack([rows % 200, columns % 190, (rows + columns) % 180], axis=-1).astype(np.uint8)
    whole[TOP : TOP + 256, LEFT : LEFT + 256] = frame
    return whole


@pytest.fixture(scope="module")
def faces():
    return list(perform(seed=0, number=900, seconds=1.2).frames(256))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, faces):
    """person.mp4, 0.8 s of a face in a larger picture; voice.wav, 0.4 s."""
    folder = tmp_path_factory.mktemp("inputs")
    write_video(folder / "person.mp4", map(in_larger_frame, faces[:20]), crf=12)
    speech(folder / "voice.wav", 0.4)
    return folder


def speech(path, seconds, rate=22050):
    noise = np.random.default_rng(0).standard_normal(round(seconds * rate)) * 3000
    write_wav(path, noise.astype(np.int16), rate)
    return path


def test_the_file_has_the_videos_size_the_sounds_length_and_says_what_it_is(folder, tmp_path):
    """The sound is longer than the video, and its length no whole number of frames."""
    out = tmp_path / "deep" / "out.mp4"
    animate(WEIGHTS, folder / "person.mp4", speech(tmp_path / "speech.wav", 1.37), out, **QUICK)
    info, frames = probe(out), list(read_frames(out))
    assert (info.width, info.height) == (WIDTH + 1, HEIGHT + 1), "odd sides are padded by one"
    assert info.rate == pytest.approx(25) and len(frames) == round(1.37 * 25)
    assert len(read_audio(out, RATE)) / RATE == pytest.approx(1.37, abs=0.025)
    about = json.loads(read_tags(out)[TAG])
    assert about["generated"] is True and about["watermark"] is True and about["sampler"]["steps"] == 1
    assert about["model"].startswith(read_mark(frames).model)
    animate(WEIGHTS, folder / "person.mp4", folder / "voice.wav", out, watermark=False, **QUICK)
    assert read_mark(read_frames(out)).model is None and json.loads(read_tags(out)[TAG])["watermark"] is False


def test_every_pixel_outside_of_the_blend_is_the_decoded_one(pipeline, folder, tmp_path):
    """Back and forth; the mouth is drawn anew, and the blend is where the mask is."""
    source = list(read_frames(folder / "person.mp4"))
    video = pipeline(folder / "person.mp4", speech(tmp_path / "speech.wav", 1.2), ONE_STEP)
    changed = np.zeros((HEIGHT + 1, WIDTH + 1), bool)
    for number, (result, own, square) in enumerate(video.pasted(range(len(video)))):
        shown = number if number < 20 else 38 - number
        assert np.array_equal(own, source[shown])
        rows, columns, alpha = blend_region(square.mask, video.path.boxes[shown], own.shape)
        inside = np.zeros(own.shape[:2], bool)
        inside[rows, columns] = alpha > 0
        assert np.array_equal(result[~inside], own[~inside])
        changed |= (result != own).any(-1)
    assert number == 29
    rows, columns = np.nonzero(changed)
    mouth = perform(seed=0, number=900, seconds=0.8).landmarks()[:, 48:].reshape(-1, 2) * 256 + [LEFT, TOP]
    assert changed[tuple(np.round(mouth.mean(axis=0)[::-1]).astype(int))]
    assert rows.min() > TOP + 100 and columns.min() > LEFT and columns.max() < LEFT + 256, "below the eyes"


def test_frames_without_a_face_stay_as_they_are_and_are_counted(pipeline, faces, tmp_path, caplog):
    frames = [*faces[:4], *[np.full_like(faces[0], 90)] * 16, *faces[:5]]
    write_video(tmp_path / "away.mp4", map(in_larger_frame, frames), crf=12)
    video = pipeline(tmp_path / "away.mp4", speech(tmp_path / "speech.wav", 1.0), ONE_STEP)
    drawn = [square is not None for _, _, square in video.pasted(range(25))]
    assert drawn == [True] * 4 + [False] * 16 + [True] * 5
    assert "no face in 16 of its frames, which stay as they are" in caplog.text


def test_references_change_what_is_drawn_and_pictures_can_be_reference_and_video(pipeline, folder, tmp_path):
    Image.fromarray(next(iter(perform(seed=0, number=901, seconds=1).frames(256)))).save(tmp_path / "face.png")
    Image.fromarray(np.full((200, 200, 3), 99, np.uint8)).save(tmp_path / "wall.png")
    drawn = {}
    for name in ("each", "widest", "progressive", str(tmp_path / "face.png")):
        sampler = choose_sampler("fast", steps=2, reference=name)
        drawn[name] = list(pipeline(folder / "person.mp4", folder / "voice.wav", sampler, seconds=0.12).frames())
    assert all(name == "each" or not np.array_equal(frames, drawn["each"]) for name, frames in drawn.items())
    wall = choose_sampler("fast", reference=str(tmp_path / "wall.png"))
    with pytest.raises(UserError, match=r"wall\.png: no face"):
        pipeline(folder / "person.mp4", folder / "voice.wav", wall)
    assert len(list(pipeline(tmp_path / "face.png", folder / "voice.wav", ONE_STEP).frames())) == 10


def clapper(path, fps, faces, seconds=1.2):
    """A face beside a board that is white for 0.12 s from every clap on."""

    def frame(number):
        light = any(clap <= number / fps + 1e-6 < clap + 0.12 for clap in CLAPS)
        board = np.full((256, 64, 3), 255 if light else 0, np.uint8)
        return np.concatenate([faces[int(number / fps * 25)], board], axis=1)

    write_video(path, map(frame, range(round(seconds * fps))), fps=fps, crf=12)
    return path


def claps(path):
    """A click at every clap."""
    sound = np.zeros(round(1.2 * RATE), np.int16)
    for clap in CLAPS:
        sound[round(clap * RATE) :][: RATE // 50] = np.random.default_rng(0).integers(-20000, 20000, RATE // 50)
    write_wav(path, sound, RATE)
    return path


@pytest.mark.parametrize(("source_fps", "fps", "interpolation"), [(30, 25, 1), (30, "source", 1), (25, 25, 2)], ids=str)
def test_the_clap_is_seen_when_it_is_heard(pipeline, faces, tmp_path, source_fps, fps, interpolation):
    inputs = clapper(tmp_path / "clapper.mp4", source_fps, faces), claps(tmp_path / "claps.wav")
    video = pipeline(*inputs, ONE_STEP, fps=fps)
    rate = video.fps * interpolation
    assert rate == {"source": 30}.get(fps, 25) * interpolation
    assert video.save(tmp_path / "out.mp4", interpolation=interpolation) == round(1.2 * rate)
    light = np.array([frame[:, -40:].mean() > 128 for frame in read_frames(tmp_path / "out.mp4", rate)])
    seen = (np.flatnonzero(light[1:] & ~light[:-1]) + 1) / rate
    loud = np.flatnonzero(np.abs(read_audio(tmp_path / "out.mp4", RATE).astype(int)) > 4000) / RATE
    heard = loud[np.r_[True, np.diff(loud) > 0.1]]
    assert len(seen) == len(heard) == len(CLAPS) and np.abs(heard - CLAPS).max() < 0.01
    assert np.abs(seen - heard).max() <= 1 / video.fps + 0.005


def test_the_mouth_follows_the_driving_sound_without_lag(pipeline, tmp_path):
    """A drawn person says what another one said: the openings agree best at no shift."""
    spoken, who = perform(seed=0, number=901, seconds=3), perform(seed=0, number=900, seconds=3)
    write_video(tmp_path / "person.mp4", who.frames(256), crf=12)
    write_wav(tmp_path / "voice.wav", spoken.audio, 16000)
    video = pipeline(tmp_path / "person.mp4", tmp_path / "voice.wav")
    frames = torch.from_numpy(np.stack(list(video.frames()))).movedim(-1, 1) / 127.5 - 1
    seen = dark_opening(frames, torch.from_numpy(who.landmarks()))
    said = true_opening(torch.from_numpy(spoken.landmarks()))
    agreement = {lag: np.corrcoef(seen[5:-5], said.roll(lag)[5:-5])[0, 1] for lag in range(-3, 4)}
    assert agreement[0] > 0.9 and max(agreement, key=lambda lag: agreement[lag]) == 0


def test_a_preview_is_a_picture_and_no_video(folder, tmp_path):
    animate(WEIGHTS, folder / "person.mp4", folder / "voice.wav", preview=tmp_path / "preview.png", **QUICK)
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    assert picture.shape[0] > 2 * 256 and picture.shape[1] > 8 * 256
    for colour in ((0, 255, 0), (255, 64, 0)):
        assert (picture == colour).all(-1).any(), "landmarks, mask"
    assert list(tmp_path.iterdir()) == [tmp_path / "preview.png"]


def test_jobs_are_made_once_and_a_bad_one_does_not_end_the_rest(folder, tmp_path, caplog):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    files = {"video": str(folder / "person.mp4"), "audio": str(folder / "voice.wav")}
    jobs = [
        {**files, "out": str(tmp_path / "one.mp4")},
        {**files, "out": str(tmp_path / "bad.mp4"), "video": str(tmp_path / "broken.mp4")},
        {**files, "out": str(tmp_path / "odd.mp4"), "stepz": 3},
        {**files, "out": str(tmp_path / "two.mp4"), "steps": 2, "fps": "source", "face": 1},
    ]
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(jobs))
    for _ in range(2):
        with pytest.raises(UserError, match=r"jobs\.yaml: 2 of 4 jobs failed"):
            animate(WEIGHTS, jobs=tmp_path / "jobs.yaml", **QUICK)
        assert "broken.mp4" in caplog.text and "stepz" in caplog.text
        one, two = tmp_path / "one.mp4", tmp_path / "two.mp4"
        assert [json.loads(read_tags(path)[TAG])["sampler"]["steps"] for path in (one, two)] == [1, 2]
        made = one.stat().st_mtime_ns
        two.unlink()
    assert one.stat().st_mtime_ns == made and not list(tmp_path.glob("[bo]*d.mp4"))


def test_what_cannot_be_animated_is_said_and_no_input_is_written_over(folder, tmp_path):
    wall, person, voice = tmp_path / "wall.mp4", folder / "person.mp4", folder / "voice.wav"
    write_video(wall, (np.full((128, 128, 3), 128, np.uint8) for _ in range(30)))
    (tmp_path / "notes.mp4").write_text("somebody's")
    for checkpoint, video, audio, out, message in (
        (WEIGHTS, wall, voice, "out.mp4", r"wall\.mp4: no face"),
        (WEIGHTS, person, person, "out.mp4", r"person\.mp4.*no audio"),
        (WEIGHTS, tmp_path / "no.mp4", voice, "out.mp4", r"no\.mp4"),
        (WEIGHTS, person, speech(tmp_path / "short.wav", 0.01), "out.mp4", "shorter than a frame"),
        (WEIGHTS / "autoencoder", person, voice, "out.mp4", "diffusion model"),
        (WEIGHTS, person, None, "out.mp4", "--audio"),
        (WEIGHTS, person, voice, person, r"person\.mp4.*input"),
        (WEIGHTS, person, voice, "notes.mp4", r"notes\.mp4"),
    ):
        before = person.read_bytes()
        with pytest.raises(UserError, match=message):
            animate(checkpoint, video, audio, tmp_path / out, **QUICK)
        assert not (tmp_path / "out.mp4").exists() and person.read_bytes() == before
    assert (tmp_path / "notes.mp4").read_text() == "somebody's"


def test_memory_does_not_grow_with_the_length(pipeline, folder, tmp_path):
    """Arrays alone: a few frames and a batch of squares, forward and backward."""

    def peak(seconds):
        video = pipeline(folder / "person.mp4", speech(tmp_path / "speech.wav", seconds), ONE_STEP, batch_size=4)
        tracemalloc.start()
        for _ in video.frames():
            pass
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    assert peak(4.0) < 1.1 * peak(1.6)


@pytest.mark.slow
@pytest.mark.parametrize("how, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_it_leaves_nothing_behind(folder, tmp_path, how, code):
    (tmp_path / "temp").mkdir()
    command = [sys.executable, "-m", "difftalk_pl", "animate", "--checkpoint", str(WEIGHTS), "--workers", "0"]
    command += ["--video", str(folder / "person.mp4"), "--audio", str(speech(tmp_path / "long.wav", 120))]
    before = signal.signal(how, signal.default_int_handler)  # a child of a background shell ignores Ctrl-C otherwise
    environment = os.environ | {"TMPDIR": str(tmp_path / "temp")}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out" / "o.mp4")], env=environment)
    signal.signal(how, before)
    end = time.monotonic() + 60
    while not (begun := any((tmp_path / "out").glob(".o.mp4*"))) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(how)
    assert process.wait(30) == code and begun
    assert not list((tmp_path / "out").iterdir()) and not list((tmp_path / "temp").glob("difftalk_pl_*"))
