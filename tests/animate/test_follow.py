"""The square that follows a head: closed forms for its path, ramps and dots for what is cut, and a drawn person."""

import numpy as np
import pytest

from difftalk_pl.animate.follow import FacePath, cut_clip, cut_square, follow
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.faces.track import follow_face

WIDTH, HEIGHT = 1280, 400
DRAWN = perform(0, 0, 0.04).landmarks()[0]
SHAPE = (DRAWN - (DRAWN.min(axis=0) + DRAWN.max(axis=0)) / 2) / np.linalg.norm(DRAWN[0] - DRAWN[16])


def faces(x: np.ndarray, y: float | np.ndarray = 200.0, size: float | np.ndarray = 90.0) -> np.ndarray:
    """(T, 68, 2): a face whose landmarks' middle is at (x, y); `size` from ear to ear."""
    x, y, size = np.broadcast_arrays(np.asarray(x, float), y, size)
    return np.stack([x, y], axis=1)[:, None] + size[:, None, None] * SHAPE


def still(frames: int, x: float = 300.0, y: float = 200.0, size: float = 90.0) -> np.ndarray:
    return faces(np.full(frames, x), y, size)


def follow_wide(landmarks: np.ndarray, **settings) -> FacePath:
    path = follow(landmarks, WIDTH, HEIGHT, **settings)
    check_inside(path.boxes, WIDTH, HEIGHT)
    return path


def points_of(path: FacePath) -> np.ndarray:
    """Landmarks in the frame, pixels; dlib's pixel 300 has its middle at 300.5."""
    return path.landmarks * path.boxes[:, None, 2:] + path.boxes[:, None, :2] - 0.5


def check_inside(boxes: np.ndarray, width: int, height: int) -> None:
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= np.array([width, height]) + 1e-9).all()


def check_holds(boxes: np.ndarray, landmarks: np.ndarray) -> None:
    assert (landmarks >= boxes[:, None, :2]).all() and (landmarks <= boxes[:, None, :2] + boxes[:, None, 2:]).all()


def test_the_square_follows_a_walking_head_without_its_jitter():
    """A Gaussian leaves a straight line as it is: far from the ends the square's place is known."""
    rng, walk = np.random.default_rng(0), np.linspace(200, 1080, 200)
    seen = faces(walk) + rng.normal(scale=2, size=(200, 1, 2)) + rng.normal(scale=1, size=(200, 68, 2))
    path = follow_wide(seen)
    boxes, middle = path.boxes, slice(45, -45)
    check_holds(boxes, seen)
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2] / 2)[middle], walk[middle] + 0.5, atol=1.5)
    np.testing.assert_allclose((boxes[:, 1] + 0.6 * boxes[:, 2])[middle], 200.5, atol=1.5)
    assert np.abs(np.diff(boxes[:, :2], n=2, axis=0)).max() < 0.5, "the head's own jitter has 2 pixels"
    assert 2.2 * np.ptp(faces(walk)[0], axis=0).max() <= boxes[:, 2].min() <= boxes[:, 2].max() < 300
    assert path.usable.all() and path.reasons == {}


@pytest.mark.parametrize("after", [{"x": 900.0}, {"size": 50.0}], ids=["elsewhere", "zoomed"])
@pytest.mark.parametrize("frame", [1, 40, 79])
def test_at_a_cut_the_square_jumps_at_once_and_not_before(frame, after):
    before_cut, after_cut = still(frame), still(80 - frame, **after)
    both = follow_wide(np.concatenate([before_cut, after_cut]))
    apart = np.concatenate([follow_wide(before_cut).boxes, follow_wide(after_cut).boxes])
    np.testing.assert_allclose(both.boxes, apart, atol=1e-3)
    assert both.usable.all() and both.shots.tolist() == [0] * frame + [1] * (80 - frame)


@pytest.mark.parametrize("fps, longest", [(25, 12), (60, 30)])
def test_half_a_second_without_a_face_is_bridged_in_a_straight_line_and_no_more(fps, longest):
    truth = faces(np.linspace(300, 340, 200))
    for frames, bridged in ((3, True), (longest, True), (longest + 1, False)):
        seen = truth.copy()
        seen[50 : 50 + frames] = np.nan
        path = follow_wide(seen, fps=fps)
        assert np.flatnonzero(~path.usable).tolist() == ([] if bridged else list(range(50, 50 + frames)))
        assert path.reasons == ({} if bridged else {"no face": frames})
        np.testing.assert_allclose(points_of(path)[10:-10], truth[10:-10], atol=0.02)


def test_frames_that_cannot_be_used_are_counted_once_each():
    seen = [still(30), still(20, x=900, size=30), still(10, x=5), still(5, x=1290, size=20)]
    path = follow_wide(np.concatenate([*seen, np.full((30, 68, 2), np.nan)]))
    assert np.flatnonzero(path.usable).tolist() == list(range(30))
    assert path.reasons == {
        "no face": 30,
        "a face of less than 32 pixels from ear to ear": 25,
        "a face that leaves the picture": 10,
    }
    with pytest.raises(UserError, match="no face found"):
        follow_wide(np.full((5, 68, 2), np.nan))
    with pytest.raises(UserError, match=r"no usable face: a face of less than 32 pixels from ear to ear in 7 frames"):
        follow_wide(still(7, size=20))


@pytest.mark.parametrize("number", [30, 8, 45])
def test_landmarks_lie_in_the_square_where_they_lay_in_the_frame(number):
    """A dot on a landmark's pixel is found in the cut square at that landmark's fraction."""
    path = follow_wide(np.round(still(1)))
    x, y = np.round(points_of(path)[0, number]).astype(int)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[y - 1 : y + 2, x - 1 : x + 2] = 255
    square = cut_square(frame, path.boxes[0], 256)[..., 0].astype(float)
    rows, columns = np.indices(square.shape) + 0.5
    dot = np.array([(columns * square).sum(), (rows * square).sum()]) / square.sum() / 256
    np.testing.assert_allclose(path.landmarks[0, number], dot, atol=0.5 / 256)


def test_a_drawn_person_who_walks_is_followed_and_cut_to_a_prepared_clip(tmp_path):
    person, exact, frames = perform(0, 0, 1.2), [], []
    for k, (square, points) in enumerate(zip(person.frames(256), person.landmarks(), strict=True)):
        canvas = np.full((300, 700, 3), 96, np.uint8)
        left, top = 20 + 12 * k, 22 + 10 * (k % 2)  # walks, and the camera trembles
        canvas[top : top + 256, left : left + 256] = square
        frames.append(canvas)
        exact.append(points * 256 + [left, top])
    frames[10:12] = [np.full_like(frames[0], 96)] * 2
    path = follow(follow_face(frames).landmarks, 700, 300)
    check_holds(path.boxes, np.array(exact))
    points = (np.array(exact) - path.boxes[:, None, :2]) / path.boxes[:, None, 2:]
    away = np.linalg.norm(path.landmarks - points, axis=-1)[3:-3, 17:]  # dlib draws its own jaw
    assert path.usable.all() and away.mean() < 0.03
    clip = cut_clip(iter(frames), path, 64, tmp_path)
    np.testing.assert_array_equal(clip.landmarks, path.landmarks)
    reader = clip.reader()
    assert len(reader) == len(frames)
    assert np.abs(reader[20].astype(int) - cut_square(frames[20], path.boxes[20], 64)).mean() < 3
