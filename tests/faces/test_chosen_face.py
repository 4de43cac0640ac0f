"""Which of several people: a drawn one and a real one side by side and one after the other; real clips for faces that
come back."""

from functools import lru_cache
from itertools import islice

import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.faces.track import CutFinder, check_choice, follow_face
from difftalk_pl.media.video import read_frames
from tests.faces.test_tracking import astronaut

SIDE = 256
WALL = np.full((SIDE, SIDE, 3), 96, np.uint8)
Shot = list[np.ndarray]


@lru_cache(maxsize=1)
def puppet() -> Shot:
    return list(perform(0, 1, 1.2).frames(SIDE))


def woman(frames: int) -> Shot:
    return [astronaut(shift=k % 8) for k in range(frames)]


def beside(*shots: Shot) -> Shot:
    return [np.concatenate(pictures, axis=1) for pictures in zip(*shots, strict=True)]


def small(picture: np.ndarray, side: int = 150) -> np.ndarray:
    """Smaller by as much, on a wall of the same size."""
    inner = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))
    return np.pad(inner, ((0, SIDE - side), (0, SIDE - side), (0, 0)), constant_values=96)


def middles(track) -> np.ndarray:
    """Horizontal places of the frames with the face."""
    return np.nanmean(track.landmarks[track.found][..., 0], axis=1)


# Side by side


@pytest.mark.parametrize("choice, column", [("left", 0), ("right", 2), ("1", 0), ("2", 1), ("3", 2), ("largest", 1)])
def test_people_side_by_side_are_counted_from_the_left(choice, column):
    third = list(perform(0, 2, 0.48).frames(SIDE))
    shot = beside([small(p) for p in puppet()[:12]], woman(12), [small(p) for p in third])
    track = follow_face(shot, choice)
    assert (track.faces_seen, track.missed) == (3, 0)
    x = middles(track)
    assert (x > column * SIDE).all() and (x < (column + 1) * SIDE).all()


def test_a_number_beyond_the_people_says_how_many_there_are():
    with pytest.raises(UserError, match="face 3: 2 found; give a number up to that"):
        follow_face(beside(puppet()[:5], woman(5)), "3")


@pytest.mark.parametrize("choice", ["", "0", "-1", "middle", "1.5", "largest "])
def test_what_is_no_choice_is_refused_before_a_frame_is_read(choice):
    def frames():
        pytest.fail("read a frame")
        yield

    message = "expected largest, left, right or a number from the left, 1 first"
    with pytest.raises(UserError, match=message):
        check_choice(choice)
    with pytest.raises(UserError, match=message):
        follow_face(frames(), choice)


@pytest.mark.parametrize("choice", ["largest", "left", "2"])
def test_no_face_is_no_error_yet(choice):
    track = follow_face([WALL] * 4, choice)
    assert (track.faces_seen, track.missed, len(track.landmarks)) == (0, 4, 4)


def test_progress_is_told_after_every_frame():
    told: list[int] = []
    follow_face([WALL] * 7, done=told.append)
    assert told == [1, 2, 3, 4, 5, 6, 7]


# One after the other


@pytest.mark.parametrize("cut", [10, 17])
def test_after_a_cut_another_person_in_the_same_place_is_another_person(cut):
    frames = [*woman(cut), *puppet()[: 30 - cut]]
    hers = np.arange(30) < cut
    left, right = (follow_face(frames, choice) for choice in ("left", "right"))
    assert (left.faces_seen, right.faces_seen) == (2, 2)
    assert (left.found ^ right.found).all(), "every frame shows one of the two"
    assert left.found.tolist() in (hers.tolist(), (~hers).tolist())


def test_only_the_shots_of_the_chosen_person_count():
    """She, he, she elsewhere, he: the two shots of each belong together, to the frame."""
    he = [small(picture) for picture in puppet()]
    frames = [*beside(woman(13), [WALL] * 13), *beside(he[:9], [WALL] * 9), *beside([WALL] * 14, woman(14))]
    frames += beside(he[9:15], [WALL] * 6)
    track = follow_face(frames)
    hers = [k for k in range(42) if k < 13 or 22 <= k < 36]
    assert (track.faces_seen, np.flatnonzero(track.found).tolist()) == (2, hers)
    assert (middles(track)[:13] < SIDE).all() and (middles(track)[13:] > SIDE).all()


def test_a_person_who_was_away_for_three_seconds_is_the_same():
    """The other one stays in the picture all the time."""
    frames = beside([*woman(12), *[WALL] * 75, *woman(12)], [*puppet() * 3, *puppet()[:9]])
    track = follow_face(frames, "left", detect_every=15)
    assert track.faces_seen == 2
    assert np.flatnonzero(track.found).tolist() == [*range(12), *range(87, 99)]


def test_a_person_who_fades_away_leaves_the_other_alone():
    """No cut: one of two followed faces is no longer confirmed."""
    shares = np.clip((18 - np.arange(30)) / 8, 0, 1)
    fading = [np.rint(share * p + (1 - share) * WALL).astype(np.uint8) for share, p in zip(shares, woman(30))]
    frames = beside(fading, [small(picture, 200) for picture in puppet()])
    cuts = CutFinder()
    assert not any(cuts.is_cut(frame) for frame in frames)
    hers, his = (follow_face(frames, choice) for choice in ("left", "right"))
    assert (hers.faces_seen, his.faces_seen, his.missed) == (2, 2, 0)
    assert hers.found[:10].all() and not hers.found[18:].any()


def test_a_flash_costs_its_own_frame_alone():
    frames = woman(21)
    frames[8] = np.full_like(WALL, 255)
    track = follow_face(frames)
    assert (track.faces_seen, np.flatnonzero(~track.found).tolist()) == (1, [8])


def test_a_false_alarm_of_a_frame_is_no_person():
    """A face of a single frame, with cuts around it."""
    frames = [*woman(8), puppet()[0], *woman(8)]
    track = follow_face(frames)
    assert (track.faces_seen, np.flatnonzero(~track.found).tolist()) == (1, [8])


def test_people_of_real_videos(real_clips):
    """Two people in one picture, another picture of the first one alone, and the second one alone."""

    def shot(name: str, first: int, frames: int) -> Shot:
        read = islice(read_frames(real_clips / f"{name}.mp4"), first, first + frames)
        return [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for frame in read]

    may, french = shot("r3d_may", 0, 45), shot("dfrf_french", 0, 45)
    frames = [*beside(may[:15], french[:15]), *beside([WALL] * 12, may[30:42]), *beside(french[30:45], [WALL] * 15)]
    his, hers = (follow_face(frames, choice) for choice in ("1", "2"))
    both = {tuple(np.flatnonzero(track.found).tolist()) for track in (his, hers)}
    assert (his.faces_seen, hers.faces_seen) == (2, 2)
    assert both == {tuple(range(27)), (*range(15), *range(27, 42))}


# Cuts


def test_cuts_are_seen_at_their_frame():
    cuts = CutFinder()
    frames = [*puppet()[:8], *woman(8), WALL, *puppet()[8:12]]
    assert [k for k, frame in enumerate(frames) if cuts.is_cut(frame)] == [8, 16, 17]


@pytest.mark.parametrize("pixels, alarms", [(1, 0), (12, 5)])
def test_a_camera_that_pans_makes_no_cuts_or_few_when_it_starts(pixels, alarms):
    cuts, picture = CutFinder(), skimage.data.astronaut()
    frames = [picture[:, 100 + pixels * max(k - 5, 0) :][:, :100] for k in range(30)]
    assert sum(cuts.is_cut(frame) for frame in frames) <= alarms


def test_real_speech_has_no_cuts(real_clips):
    for name in ("r3d_may", "hdtf_aoc", "dfrf_french"):
        cuts = CutFinder()
        assert not any(cuts.is_cut(frame) for frame in islice(read_frames(real_clips / f"{name}.mp4"), 60))
