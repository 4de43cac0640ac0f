"""Which frame shows the person: every rule beside all frames tried one by one, faces whose lips are known, pictures
that a camera turned."""

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import GENERATION, WindowDataset
from difftalk_pl.data.references import ReferencePolicy, ReferenceRule, read_face
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.data.synthetic.geometry import Pose, landmarks
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import read_frames

# The one reference of a clip


def tried(frame: int, scores: np.ndarray, gap: int) -> int:
    """The best of all frames far enough away; where there is none, the furthest."""
    away = [other for other in range(len(scores)) if abs(other - frame) >= gap]
    if away:
        return max(away, key=lambda other: scores[other])
    return max(range(len(scores)), key=lambda other: abs(other - frame))


@pytest.mark.parametrize("frames", [1, 2, 7, 30, 61, 130])
@pytest.mark.parametrize("gap", [0, 1, 25, 60])
def test_the_best_frame_is_that_of_all_frames_tried(frames, gap):
    rule, rng = ReferenceRule(gap, lenient=True, source="random"), np.random.default_rng(0)
    for seed in range(3):
        scores = np.random.default_rng(seed).random(frames)
        for frame in range(frames):
            best, expected = rule.choose(frame, frames, rng, scores), tried(frame, scores, gap)
            furthest_both_ways = abs(best - frame) == abs(expected - frame) and abs(best - frame) < gap
            assert best == expected or furthest_both_ways


# The widest mouth


def test_the_widest_mouth_is_the_one_that_was_drawn_widest():
    who, rng = perform(0, 0, 0.04).who, np.random.default_rng(0)
    opening = rng.permutation(np.linspace(0, 1, 60))
    poses = [
        Pose(rng.uniform(0.4, 0.6), 0.4, rng.uniform(0.7, 1.3), rng.uniform(-0.3, 0.3), opening=wide)
        for wide in opening.tolist()
    ]
    points = np.stack([landmarks(who, pose) for pose in poses])
    rule = ReferenceRule(0, lenient=True, source="widest")
    measured = rule.scores(points, 0, "a")
    assert measured.argmax() == opening.argmax(), "whatever the head's size, place and lean"
    assert np.corrcoef(measured, opening)[0, 1] > 0.99
    assert rule.choose(5, 60, rng, measured) == opening.argmax()


# What a user asks for


def test_names_of_policies():
    for text in ("each", "random", "widest"):
        assert ReferencePolicy.parse(text) == ReferencePolicy(text)
        assert ReferencePolicy.parse(f"progressive:{text}") == ReferencePolicy(text, True)
    assert ReferencePolicy.parse("progressive") == ReferencePolicy("random", True)


@pytest.mark.parametrize("text", ["", "first", "nobody.png", "progressive:", "each:random"])
def test_what_is_no_policy_is_refused_with_what_is(text):
    with pytest.raises(UserError, match=r"reference '.*': .*each, random, widest or the file of a picture") as error:
        ReferencePolicy.parse(text)
    assert repr(text) in str(error.value)


# Pictures


@pytest.fixture(scope="module")
def photograph(real_clips) -> Image.Image:
    return Image.fromarray(next(iter(read_frames(real_clips / "hdtf_aoc.mp4", 25))))


def test_the_face_of_a_picture_is_cut_as_a_clip_and_turned_as_its_camera_says(tmp_path, photograph):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera stood on its side: turn by a quarter to the right
    photograph.save(tmp_path / "plain.png")
    photograph.rotate(90, expand=True).save(tmp_path / "side.png", exif=turned)
    face = read_face(tmp_path / "plain.png", 64)
    assert face.shape == (64, 64, 3) and face.dtype == np.uint8
    np.testing.assert_array_equal(read_face(tmp_path / "side.png", 64), face)


def test_what_is_no_picture_of_a_face_is_refused_by_name(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "face.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "face.png").read_bytes()[:5000])
    for name, reason in (
        ("half.png", "no readable picture"),
        ("no.png", "no readable picture"),
        ("face.png", "no face"),
    ):
        with pytest.raises(UserError, match=rf"{name}: {reason}"):
            read_face(tmp_path / name, 64)


# In the Dataset


def references(root, **options) -> list[int]:
    windows = WindowDataset(open_clips(root)[:1], GENERATION, **options)
    return [windows[frame]["reference_frame"] for frame in range(0, 130, 20)]


def test_windows_take_the_widest_mouth_of_the_clip(talkers):
    clip = open_clips(talkers)[0]
    chosen = references(talkers, reference=ReferenceRule(0, lenient=True, source="widest"))
    lips = np.linalg.norm(clip.landmarks[:, 62] - clip.landmarks[:, 66], axis=1)
    assert len(set(chosen)) == 1 and lips[chosen[0]] > np.quantile(lips, 0.95)


def test_windows_take_one_random_frame_by_seed(talkers):
    rule = ReferenceRule(0, lenient=True, source="random")
    chosen = [references(talkers, reference=rule, seed=seed) for seed in (0, 1, 2, 3, 0)]
    assert all(len(set(one)) == 1 for one in chosen)
    assert chosen[0] == chosen[4] and len({one[0] for one in chosen}) > 2
