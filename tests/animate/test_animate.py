"""The pipeline and animate on drawn faces that dlib finds: lengths, surroundings, awkward input, errors."""

import json

import numpy as np
import pytest
import torch

from difftalk_pl.animate.command import animate
from difftalk_pl.animate.pipeline import FaceSettings, TalkingHeadPipeline
from difftalk_pl.animate.watermark import read_mark
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.opening import correlation, dark_opening, true_opening
from difftalk_pl.generation.presets import choose_sampler
from difftalk_pl.media.audio import read_audio, write_wav
from difftalk_pl.media.video import probe, read_frames
from difftalk_pl.media.writer import TAG, read_tags, write_video
from tests.conftest import PROJECT

WEIGHTS = PROJECT / "experiments" / "demo" / "weights"
QUICK = {"sampler": "dpm++", "steps": 2, "workers": 0, "device": "cpu"}
WIDTH, HEIGHT, LEFT, TOP = 421, 301, 120, 31  # of a frame with odd sides, and where the drawn face stands in it


@pytest.fixture(scope="module")
def pipeline():
    return TalkingHeadPipeline.from_pretrained(WEIGHTS, device="cpu")


def in_a_room(frame, left=LEFT):
    """A 256 px face in a larger picture with a pattern."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    room = np.stack([rows % 200, columns % 190, (rows + columns) % 180], axis=-1).astype(np.uint8)
    room[TOP : TOP + 256, left : left + 256] = frame
    return room


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """2 s of a face in a larger picture, no sound."""
    path = tmp_path_factory.mktemp("person") / "person.mp4"
    write_video(path, map(in_a_room, perform(seed=0, number=900, seconds=2).frames(256)), crf=12)
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """1 s."""
    return speech(tmp_path_factory.mktemp("voice") / "voice.wav", 1.0)


def speech(path, seconds, rate=22050):
    random = np.random.default_rng(0)
    write_wav(path, (random.standard_normal(round(seconds * rate)) * 3000).astype(np.int16), rate)
    return path


def quick(**changes):
    return choose_sampler("fast", steps=2, **changes)


@pytest.mark.parametrize("seconds", [0.1, 0.33, 1.0, 1.219, 1.221, 1.98, 2.0, 2.02, 3.37, 5.13])
def test_there_are_as_many_frames_as_the_sound_has_twentyfifths(pipeline, person, tmp_path, seconds):
    video = pipeline(person, speech(tmp_path / "speech.wav", seconds), quick())
    assert len(video) == round(seconds * 25)


@pytest.mark.parametrize("seconds", [1.0, 4.37])
def test_the_file_has_the_videos_size_and_the_sounds_length(person, tmp_path, seconds):
    out = tmp_path / "deep" / "out.mp4"
    animate(WEIGHTS, person, speech(tmp_path / "speech.wav", seconds), out, **QUICK)
    info = probe(out)
    assert (info.width, info.height) == (WIDTH + 1, HEIGHT + 1), "odd sides are padded by one"
    assert info.rate == pytest.approx(25) and len(list(read_frames(out))) == round(seconds * 25)
    assert len(read_audio(out, 44100)) / 44100 == pytest.approx(seconds, abs=0.025)


def test_every_pixel_outside_of_the_blend_is_the_decoded_one(pipeline, person, tmp_path):
    """Back and forth, in all frames; the mouth is drawn anew, and the blend is where the mask is."""
    source = list(read_frames(person))
    video = pipeline(person, speech(tmp_path / "speech.wav", 3.0), quick())
    changed = np.zeros((HEIGHT + 1, WIDTH + 1), bool)
    for number, (result, own, square) in enumerate(video.pasted()):
        shown = number if number < 50 else 98 - number
        assert np.array_equal(own, source[shown])
        region = video.paste.region(square.mask, video.boxes[shown], own.shape)
        inside = np.zeros(own.shape[:2], bool)
        inside[region.rows, region.columns] = region.alpha > 0
        assert np.array_equal(result[~inside], own[~inside])
        changed |= (result != own).any(-1)
    assert number == 74
    rows, columns = np.nonzero(changed)
    mouth = perform(seed=0, number=900, seconds=2).landmarks()[:, 48:].reshape(-1, 2) * 256 + [LEFT, TOP]
    assert changed[tuple(np.round(mouth.mean(axis=0)[::-1]).astype(int))]
    assert rows.min() > TOP + 100 and columns.min() > LEFT and columns.max() < LEFT + 256, "below the eyes"


def test_frames_without_a_face_stay_as_they_are_and_are_counted(pipeline, voice, tmp_path):
    faces = [in_a_room(frame) for frame in perform(seed=0, number=900, seconds=1).frames(256)]
    wall = np.full_like(faces[0], 90)
    write_video(tmp_path / "away.mp4", [*faces[:8], *[wall] * 16, *faces[:10]], crf=12)
    video = pipeline(tmp_path / "away.mp4", voice, quick())
    drawn = [square is not None for _, _, square in video.pasted()]
    assert drawn == [True] * 8 + [False] * 16 + [True]
    assert sum(video.passed.values()) == 16


def test_a_video_keeps_its_own_rate_where_that_is_asked_for(pipeline, tmp_path):
    performance = perform(seed=0, number=900, seconds=2)
    write_video(tmp_path / "fast.mp4", performance.frames(256), fps=30, crf=12)
    video = pipeline(tmp_path / "fast.mp4", speech(tmp_path / "speech.wav", 1.0), quick(), fps="source")
    assert video.fps == 30 and len(video) == 30
    video.save(tmp_path / "out.mp4", interpolation=2)
    assert probe(tmp_path / "out.mp4").rate == pytest.approx(60)
    assert len(list(read_frames(tmp_path / "out.mp4", 60))) == 60


def test_every_other_frame_of_an_interpolated_video_is_the_drawn_one(pipeline, person, voice, tmp_path):
    once, twice = tmp_path / "once.mp4", tmp_path / "twice.mp4"
    pipeline(person, voice, quick()).save(once, watermark=False, crf=4)
    pipeline(person, voice, quick()).save(twice, interpolation=2, watermark=False, crf=4)
    drawn, shown = list(read_frames(once, 25)), list(read_frames(twice, 50))
    assert len(shown) == 2 * len(drawn)
    errors = [np.abs(one.astype(int) - other).mean() for one, other in zip(drawn, shown[::2])]
    assert max(errors) < 1.5


def test_one_of_two_people_is_chosen(pipeline, voice, tmp_path):
    one, other = (list(perform(seed=0, number=n, seconds=0.6).frames(256)) for n in (900, 901))
    pair = [np.concatenate([left, right], axis=1) for left, right in zip(one, other)]
    write_video(tmp_path / "pair.mp4", pair, crf=12)
    for choice, inside in (("left", lambda x: x < 256), ("2", lambda x: x >= 256)):
        video = pipeline(tmp_path / "pair.mp4", voice, quick(), face=FaceSettings(choice), first=0.16)
        for result, own, _ in video.pasted():
            columns = np.nonzero((result != own).any(-1))[1]
            assert len(columns) and all(inside(columns))
    with pytest.raises(UserError, match=r"2 found"):
        pipeline(tmp_path / "pair.mp4", voice, quick(), face=FaceSettings("3"), first=0.16)


def test_the_mark_and_the_metadata_say_that_a_video_is_generated(person, voice, tmp_path):
    marked, plain = tmp_path / "marked.mp4", tmp_path / "plain.mp4"
    animate(WEIGHTS, person, voice, marked, **QUICK)
    animate(WEIGHTS, person, voice, plain, no_watermark=True, **QUICK)
    for path, there in ((marked, True), (plain, False)):
        about = json.loads(read_tags(path)[TAG])
        assert about["generated"] is True and about["watermark"] is there
        assert read_mark(read_frames(path)).found is there
    assert about["settings"]["sampler"]["steps"] == 2


def test_references_change_what_is_drawn_and_a_picture_may_be_one(pipeline, person, voice, tmp_path):
    from PIL import Image

    Image.fromarray(next(iter(perform(seed=0, number=901, seconds=1).frames(256)))).save(tmp_path / "face.png")
    drawn = {}
    for name in ("each", "widest", "progressive", str(tmp_path / "face.png")):
        drawn[name] = np.stack(list(pipeline(person, voice, quick(reference=name), first=0.12).frames()))
    for name, frames in drawn.items():
        assert name == "each" or not np.array_equal(frames, drawn["each"])
    Image.fromarray(np.full((200, 200, 3), 99, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(UserError, match=r"wall\.png: no face"):
        pipeline(person, voice, quick(reference=str(tmp_path / "wall.png")), first=0.12)


def test_a_preview_is_a_picture_and_no_video(person, voice, tmp_path):
    from PIL import Image

    animate(WEIGHTS, person, voice, preview=tmp_path / "preview.png", **QUICK)
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    assert picture.shape[0] > 4 * 320 and picture.shape[1] > 8 * 320
    for colour in ((0, 255, 0), (255, 64, 0), (64, 160, 255)):
        assert (np.abs(picture.astype(int) - colour).sum(-1) < 60).any(), "landmarks, mask, square"
    assert list(tmp_path.iterdir()) == [tmp_path / "preview.png"]


def test_what_cannot_be_animated_is_said(person, voice, tmp_path, codec):
    wall = tmp_path / "wall.mp4"
    write_video(wall, (np.full((128, 128, 3), 128, np.uint8) for _ in range(30)))
    for arguments, message in (
        ((WEIGHTS, wall, voice), r"wall\.mp4: no face"),
        ((WEIGHTS, person, person), r"person\.mp4.*no audio"),
        ((WEIGHTS, tmp_path / "no.mp4", voice), r"no\.mp4"),
        ((codec, person, voice), r"stage 1"),
        ((WEIGHTS, person, None), r"--audio missing"),
    ):
        with pytest.raises(UserError, match=message):
            animate(*arguments, tmp_path / "out.mp4", **QUICK)
        assert not (tmp_path / "out.mp4").exists()


def test_the_mouth_follows_the_driving_sound_without_lag(pipeline, tmp_path):
    """A drawn person says what another one said: the openings agree best at no shift."""
    spoken, who = perform(seed=0, number=901, seconds=4), perform(seed=0, number=900, seconds=4)
    write_video(tmp_path / "person.mp4", who.frames(256), crf=12)
    write_wav(tmp_path / "voice.wav", spoken.audio, 16000)
    video = pipeline(tmp_path / "person.mp4", tmp_path / "voice.wav", choose_sampler("fast", steps=6))
    frames = torch.from_numpy(np.stack(list(video.frames()))).movedim(-1, 1) / 127.5 - 1
    seen = dark_opening(frames, torch.from_numpy(who.landmarks()))
    said = true_opening(torch.from_numpy(spoken.landmarks()))
    agreement = {lag: correlation(seen[5:-5], said.roll(lag)[5:-5]) for lag in range(-3, 4)}
    assert agreement[0] > 0.9 and max(agreement, key=lambda lag: agreement[lag]) == 0
