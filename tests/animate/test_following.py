"""The square that follows a head: closed forms for its path, dots and ramps for what is cut, drawn people for both."""

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.animate.following import Followed, cut_square, face_in, follow
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.faces.detect import boxes_in
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


def follow_wide(landmarks: np.ndarray, **settings) -> Followed:
    return follow(landmarks, WIDTH, HEIGHT, **settings)


def check_inside(boxes: np.ndarray, width: int, height: int) -> None:
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= np.array([width, height]) + 1e-9).all()


def check_holds(boxes: np.ndarray, landmarks: np.ndarray) -> None:
    assert (landmarks >= boxes[:, None, :2]).all() and (landmarks <= boxes[:, None, :2] + boxes[:, None, 2:]).all()


# The path


def test_the_square_follows_a_walking_head_without_its_jitter():
    """A Gaussian leaves a straight line as it is: far from the ends the square's place is known."""
    rng = np.random.default_rng(0)
    path = np.linspace(200, 1080, 200)
    jitter = rng.normal(scale=2, size=(200, 1, 2))
    seen = faces(path) + jitter + rng.normal(scale=1, size=(200, 68, 2))
    followed = follow_wide(seen)
    boxes, middle = followed.boxes, slice(45, -45)
    check_inside(boxes, WIDTH, HEIGHT)
    check_holds(boxes, seen)
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2] / 2)[middle], path[middle] + 0.5, atol=1.5)
    np.testing.assert_allclose((boxes[:, 1] + 0.6 * boxes[:, 2])[middle], 200.5, atol=1.5)
    speed = path[1] - path[0]
    assert np.abs(np.diff(boxes[:, :2], axis=0)).max() < 1.5 * speed
    assert np.abs(np.diff(boxes[:, :2], n=2, axis=0)).max() < 0.5, "the head's own jitter has 2 pixels"
    assert np.abs(np.diff(boxes[:, 2])).max() < 0.005 * boxes[:, 2].min()
    assert 2.2 * np.ptp(faces(path)[0], axis=0).max() <= boxes[:, 2].min() <= boxes[:, 2].max() < 300
    assert followed.usable.all() and followed.reasons == {}


def test_the_square_grows_with_a_head_that_comes_closer_and_shrinks_when_it_goes():
    size = 60 + 20 * np.sin(np.arange(250) / 25)
    boxes = follow_wide(faces(np.full(250, 600.0), size=size)).boxes
    assert np.corrcoef(boxes[:, 2], size)[0, 1] > 0.9
    assert np.abs(np.diff(boxes[:, 2])).max() < 2.2 * np.abs(np.diff(size)).max() * 1.5


def test_a_head_that_shakes_stays_in_the_square():
    shaking = 640 + 60 * np.sin(2 * np.pi * 2 * np.arange(100) / 25)  # twice a second, two thirds of a face each way
    seen = faces(shaking)
    check_holds(follow_wide(seen).boxes, seen)


@pytest.mark.parametrize("frame", [1, 40, 79])
@pytest.mark.parametrize("after", [{"x": 900.0}, {"size": 50.0}], ids=["elsewhere", "zoomed"])
def test_at_a_cut_the_square_jumps_at_once_and_not_before(frame, after):
    before_cut, after_cut = still(frame), still(80 - frame, **after)
    both = follow_wide(np.concatenate([before_cut, after_cut]))
    apart = np.concatenate([follow_wide(before_cut).boxes, follow_wide(after_cut).boxes])
    np.testing.assert_allclose(both.boxes, apart, atol=1e-6)
    assert both.usable.all()


def test_a_nod_is_no_cut():
    nod = 200 + 25 * np.sin(2 * np.pi * 1.5 * np.arange(100) / 25)
    boxes = follow_wide(faces(np.full(100, 600.0), nod)).boxes
    assert np.abs(np.diff(boxes, axis=0)).max() < 1


# Frames that cannot be used


@pytest.mark.parametrize("fps, longest", [(25, 12), (30, 15), (60, 30)])
def test_half_a_second_without_a_face_is_bridged_in_a_straight_line_and_no_more(fps, longest):
    truth = faces(np.linspace(300, 340, 200))
    for frames, bridged in ((3, True), (longest, True), (longest + 1, False), (2 * fps, False)):
        seen = truth.copy()
        seen[50 : 50 + frames] = np.nan
        followed = follow_wide(seen, fps=fps)
        gone = np.zeros(200, bool)
        gone[50 : 50 + frames] = not bridged
        np.testing.assert_array_equal(followed.usable, ~gone)
        assert followed.reasons == ({} if bridged else {"no face": frames})
        np.testing.assert_allclose(followed.landmarks[10:-10], truth[10:-10], atol=0.01)
        check_inside(followed.boxes, WIDTH, HEIGHT)


def test_longer_gaps_are_bridged_if_asked():
    seen = still(100)
    seen[20:60] = np.nan
    assert follow_wide(seen, max_gap=1.6).usable.all()
    assert (~follow_wide(seen, max_gap=1.5).usable).sum() == 40
    seen = still(100)
    seen[20] = np.nan
    assert follow_wide(seen, max_gap=0).reasons == {"no face": 1}


def test_no_face_is_made_up_between_two_places():
    """A shot of something else between two of the person: where the face would slide by is no face."""
    seen = np.concatenate([still(40), np.full((6, 68, 2), np.nan), still(40, x=900)])
    followed = follow_wide(seen)
    assert np.flatnonzero(~followed.usable).tolist() == list(range(40, 46))
    assert followed.reasons == {"no face": 6}
    np.testing.assert_allclose(followed.boxes[:40], follow_wide(seen[:40]).boxes, atol=1e-6)
    np.testing.assert_allclose(followed.boxes[46:], follow_wide(seen[46:]).boxes, atol=1e-6)


def test_small_and_leaving_faces_are_counted_once_each():
    seen = np.concatenate([still(30), still(20, x=900, size=30), still(10, x=5), still(5, x=1290, size=20)])
    seen = np.concatenate([seen, np.full((30, 68, 2), np.nan)])
    followed = follow_wide(seen)
    assert np.flatnonzero(followed.usable).tolist() == list(range(30))
    assert followed.reasons == {
        "no face": 30,
        "a face of less than 32 pixels from ear to ear": 25,
        "a face that leaves the picture": 10,
    }
    assert follow_wide(seen, min_face=29).reasons["a face of less than 29 pixels from ear to ear"] == 5


def test_a_video_without_a_usable_face_is_refused_with_its_reasons():
    with pytest.raises(UserError, match="no face found"):
        follow_wide(np.full((5, 68, 2), np.nan))
    with pytest.raises(UserError, match=r"no usable face: a face of less than 32 pixels from ear to ear in 7 frames"):
        follow_wide(still(7, size=20))


@pytest.mark.parametrize("x, y", [(52, 200), (1228, 200), (600, 56), (600, 344)])
def test_a_face_at_the_edge_keeps_its_square_inside(x, y):
    seen = still(10, x, y)
    followed = follow_wide(seen)
    check_inside(followed.boxes, WIDTH, HEIGHT)
    check_holds(followed.boxes, seen)
    assert followed.usable.all()


@pytest.mark.parametrize("width, height", [(150, 200), (200, 150), (151, 151)])
def test_a_frame_smaller_than_the_square_is_cut_to_its_shorter_side(width, height):
    followed = follow(still(10, width / 2, height / 2), width, height)
    np.testing.assert_allclose(followed.boxes[:, 2], min(width, height))
    check_inside(followed.boxes, width, height)


def test_a_still_face_lies_in_the_square_as_in_the_clips_of_training():
    """In the middle, at 0.6 of the height, 2.2 times its own size; dlib's pixel 300 has its middle at 300.5."""
    box = follow_wide(still(30)).boxes[7]
    np.testing.assert_allclose(box[:2] + box[2] * np.array([0.5, 0.6]), [300.5, 200.5], atol=1e-6)
    assert box[2] == pytest.approx(2.2 * 90 * np.ptp(SHAPE, axis=0).max(), rel=1e-6)


def test_a_single_frame():
    followed = follow_wide(still(1))
    assert followed.landmarks.shape == (1, 68, 2) and followed.boxes.shape == (1, 3) and followed.usable.all()


# What is cut


@pytest.mark.parametrize("size", [64, 300])
@pytest.mark.parametrize("box", [(10.25, 20.5, 100.0), (0.0, 0.0, 119.7), (31.9, 3.3, 116.7)])
def test_a_ramp_is_cut_where_the_square_lies(box, size):
    """Brightness tells the place: 1.5 levels a pixel to the right, 0.1 in blue downwards."""
    x, y = np.meshgrid(np.arange(150) + 0.5, np.arange(120) + 0.5)
    frame = np.stack([1.5 * x, 1.5 * x, 2 * y], axis=-1).astype(np.uint8)
    cut = cut_square(frame, np.array(box), size)
    assert cut.shape == (size, size, 3) and cut.dtype == np.uint8
    places = (np.arange(size) + 0.5) / size * box[2]
    inner = slice(size // 10, -size // 10)
    np.testing.assert_allclose(cut[5, inner, 0], (1.5 * (box[0] + places) - 0.5)[inner], atol=1.2)
    np.testing.assert_allclose(cut[inner, 5, 2], (2 * (box[1] + places) - 0.5)[inner], atol=1.2)


def test_a_fine_pattern_does_not_alias():
    frame = np.repeat(255 * (np.indices((256, 256)).sum(axis=0) % 2)[..., None], 3, axis=2).astype(np.uint8)
    assert np.ptp(cut_square(frame, np.array([3.5, 3.5, 250.0]), 64)[4:-4, 4:-4].astype(int)) < 8


@pytest.mark.parametrize("number", [30, 8, 45])
def test_landmarks_lie_in_the_square_where_they_lay_in_the_frame(number):
    """A dot on a landmark's pixel is found in the cut square at that landmark's fraction."""
    followed = follow_wide(np.round(still(1)))
    x, y = np.round(followed.landmarks[0, number]).astype(int)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[y - 1 : y + 2, x - 1 : x + 2] = 255
    square = cut_square(frame, followed.boxes[0], 256)[..., 0].astype(float)
    rows, columns = np.indices(square.shape) + 0.5
    dot = np.array([(columns * square).sum(), (rows * square).sum()]) / square.sum() / 256
    np.testing.assert_allclose(followed.fractions[0, number], dot, atol=0.5 / 256)


# Drawn people


def test_a_drawn_person_who_walks_is_followed_by_what_dlib_finds():
    person = perform(0, 0, 1.2)
    exact, frames = [], []
    for k, (square, points) in enumerate(zip(person.frames(256), person.landmarks(), strict=True)):
        canvas = np.full((300, 700, 3), 96, np.uint8)
        left, top = 20 + 12 * k, 22 + 10 * (k % 2)  # walks, and the camera trembles
        canvas[top : top + 256, left : left + 256] = square
        frames.append(canvas)
        exact.append(points * 256 + [left, top])
    followed = follow(follow_face(frames).landmarks, 700, 300)
    check_inside(followed.boxes, 700, 300)
    check_holds(followed.boxes, np.array(exact))
    assert followed.usable.all()
    assert np.abs(np.diff(followed.boxes, axis=0)).max() < 14
    points = (np.array(exact) - followed.boxes[:, None, :2]) / followed.boxes[:, None, 2:]
    away = np.linalg.norm(followed.fractions - points, axis=-1)[3:-3, 17:]  # dlib draws its own jaw
    assert away.mean() < 0.03


def picture_of_two(path) -> list[np.ndarray]:
    """Two drawn people side by side; returns each one's own picture."""
    alone = [next(perform(0, number, 0.04).frames(256)) for number in (0, 1)]
    Image.fromarray(np.concatenate(alone, axis=1)).save(path)
    return alone


def test_the_face_of_a_picture(tmp_path):
    alone = picture_of_two(tmp_path / "two.png")
    for choice, own in (("left", 0), ("2", 1)):
        square = face_in(tmp_path / "two.png", 128, choice)
        assert square.shape == (128, 128, 3) and len(boxes_in(np.asarray(Image.fromarray(square).resize((256, 256)))))
        distances = [np.abs(square.mean(axis=(0, 1)) - each.mean(axis=(0, 1))).sum() for each in alone]
        assert np.argmin(distances) == own


def test_a_picture_without_a_face_is_refused_by_name(tmp_path):
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(UserError, match=r"wall\.png: no face found"):
        face_in(tmp_path / "wall.png", 64)
    picture_of_two(tmp_path / "two.png")
    with pytest.raises(UserError, match=r"two\.png: face 3: 2 found"):
        face_in(tmp_path / "two.png", 64, "3")
