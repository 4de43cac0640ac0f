"""Both mask policies. That `mouth_safe` covers mouth and chin, and cannot tell how they move, is measured on faces."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.masks import MaskPolicy, hide
from difftalk_pl.data.prepare import Settings, to_fractions
from difftalk_pl.faces.crop import crop_square, fill_gaps, smooth
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.video import probe, read_frames

REAL = ("hdtf_aoc", "ls_demo1", "r3d_may", "vr_1")
JAW, CHIN, NOSE, EYES, MOUTH = range(0, 17), range(5, 12), range(27, 36), range(36, 48), range(48, 68)
SIZE = 256
MARGIN = 3  # pixels at 256


class Margins(NamedTuple):
    """Pixels at 256 from points to the mask's outline; negative outside. (T,) each."""

    mouth: np.ndarray  # the least of the mouth's points
    chin: np.ndarray
    above: np.ndarray  # the greatest of the points of nose and eyes
    opening: np.ndarray  # of the mouth, fraction of the side


@pytest.fixture(scope="module", params=REAL)
def real_landmarks(request, real_clips) -> np.ndarray:
    """(T, 68, 2) fractions of a real clip, found and cropped as prepare does."""
    settings = Settings()
    source = real_clips / f"{request.param}.mp4"
    info = probe(source)
    seen = track_faces(read_frames(source, FPS), detect_every=settings.detect_every)
    points = smooth(fill_gaps(seen.landmarks, settings.max_gap, FPS), settings.smoothing)
    return to_fractions(points, crop_square(points, info.width, info.height, settings.margin))


def margins(landmarks: np.ndarray) -> Margins:
    rows = [_margins(points) for points in landmarks]
    return Margins(*(np.array(column) for column in zip(*rows, strict=True)))


def _margins(points: np.ndarray) -> tuple[float, float, float, float]:
    border = 32  # the picture's edge is no outline: beyond it, the mask goes on
    mask = np.pad(MaskPolicy("mouth_safe")(points, SIZE), border, mode="edge")
    signed = distance_transform_edt(mask) - distance_transform_edt(~mask)
    pixel = np.floor(points * SIZE).astype(int) + border
    depth = signed[pixel[:, 1].clip(0, len(mask) - 1), pixel[:, 0].clip(0, len(mask) - 1)]
    above = depth[[*NOSE, *EYES]].max()
    return depth[list(MOUTH)].min(), depth[list(CHIN)].min(), above, points[66, 1] - points[62, 1]


def check(measured: Margins) -> None:
    inside = np.minimum(measured.mouth, measured.chin) >= MARGIN
    assert inside.mean() >= 0.99
    wide = measured.opening >= np.quantile(measured.opening, 0.95)
    assert inside[wide].all(), "the widest mouths are covered, too"
    assert (measured.above < 0).all(), "nose and eyes are never covered"


def test_mouth_and_chin_of_real_faces_lie_inside_nose_and_eyes_outside(real_landmarks):
    opening = real_landmarks[:, 66, 1] - real_landmarks[:, 62, 1]
    widest = np.argsort(opening)[-len(opening) // 20 :]
    check(margins(real_landmarks[np.union1d(widest, np.arange(0, len(opening), 8))]))


def test_mouth_and_chin_of_drawn_faces_lie_inside_nose_and_eyes_outside(talkers):
    for clip in open_clips(talkers):
        check(margins(clip.landmarks[::10]))


def moved(points: np.ndarray, which: range, rng: np.random.Generator) -> np.ndarray:
    after = points.copy()
    after[list(which)] += rng.normal(scale=0.1, size=(len(which), 2))
    return after


def test_the_safe_mask_cannot_tell_where_mouth_and_jaw_are(real_landmarks):
    rng, policy = np.random.default_rng(0), MaskPolicy("mouth_safe")
    for points in real_landmarks[::20]:
        mask = policy(points, 128)
        for which in (MOUTH, JAW):
            np.testing.assert_array_equal(policy(moved(points, which, rng), 128), mask)
        assert (policy(moved(points, EYES, rng), 128) != mask).any(), "it does follow the head"


@pytest.mark.parametrize("y, first", [(0.5, 32), (0.51, 32), (0.52, 33), (0.0, 0), (-0.2, 0), (0.999, 63), (1.3, 64)])
def test_below_nose_hides_the_rows_from_the_tip_of_the_nose_down(y, first):
    points = np.random.default_rng(0).random((68, 2))
    points[30] = 0.3, y
    mask = MaskPolicy("below_nose")(points, 64)
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(64)[:, None] >= first, (64, 64)))


def test_hidden_is_grey_and_the_rest_as_it_was():
    image = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)
    mask = np.random.default_rng(1).random((2, 8, 8)) < 0.5
    hidden = hide(image, mask)
    assert hidden.dtype == np.float32
    for n in range(2):
        for channel in range(3):
            assert (hidden[n, channel][mask[n]] == 0).all()
            np.testing.assert_array_equal(hidden[n, channel][~mask[n]], image[n, channel][~mask[n]])
