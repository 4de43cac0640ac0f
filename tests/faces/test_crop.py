"""Gaps, smoothing and squares against closed forms; squares straight from the decoder against those of whole frames."""

from functools import partial

import numpy as np
import pytest
import skimage.data

from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop, CutSquare, check_face, crop_square, cut_frame, fill_gaps, smooth
from difftalk_pl.media.video import probe, read_frames
from difftalk_pl.media.writer import write_video
from tests.media.files import turned

PHOTO = skimage.data.astronaut()[:400, :500]


def moving_points(frames: int, seed: int = 0, centre=(200.0, 150.0), size=80.0, sway=30.0) -> np.ndarray:
    """(T, 68, 2): a rigid cloud of points that sways."""
    cloud = np.random.default_rng(seed).uniform(-0.5, 0.5, (68, 2)) * size
    cloud[0], cloud[16] = (-size / 2, 0), (size / 2, 0)
    t = np.arange(frames) / 25
    path = np.stack([np.sin(2 * np.pi * 0.7 * t), np.cos(2 * np.pi * 0.5 * t)], axis=1) * sway
    return (np.array(centre) + path[:, None] + cloud).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b) ** 2).mean(), 1e-9)))


def both_ways(path, crop: Crop, size: int):
    """Every square, straight from the decoder and cut out of the whole frame."""
    short = read_frames(path, convert=partial(CutSquare, crop=crop, size=size))
    return zip(short, (cut_frame(frame, crop, size) for frame in read_frames(path)), strict=True)


def test_short_gaps_are_filled_along_straight_lines():
    truth = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 68, 2), np.float32) * 3
    holed = truth.copy()
    holed[10:22] = holed[30] = np.nan
    np.testing.assert_allclose(fill_gaps(holed), truth, rtol=1e-5)
    holed[:5] = holed[-12:] = np.nan
    filled = fill_gaps(holed)
    np.testing.assert_allclose(filled[[0, 4, 28, 39]].mean(axis=(1, 2)), [15, 15, 81, 81], rtol=1e-5)
    assert filled.dtype == np.float32


def test_long_gaps_are_refused_with_their_time():
    points = moving_points(1600)
    points[1500:1526] = np.nan
    with pytest.raises(UserError, match=r"no face for 1\.0 s at 01:00\.0"):
        fill_gaps(points)
    points[:13] = np.nan
    with pytest.raises(UserError, match=r"no face for 0\.5 s at 00:00\.0"):
        fill_gaps(points)
    with pytest.raises(UserError, match="no face found"):
        fill_gaps(np.full((5, 68, 2), np.nan))


def test_smoothing_takes_the_jitter_and_leaves_the_motion():
    truth = moving_points(250)
    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 0.7) ** 2)
    left = np.sqrt(((weights / weights.sum()) ** 2).sum())  # what a filter leaves of white noise
    difference = smooth(truth + noise, 0.7) - smooth(truth, 0.7)
    assert np.std(difference[5:-5]) == pytest.approx(left, rel=0.03)
    assert np.abs(smooth(truth, 0.7) - truth)[5:-5].max() < 0.5  # pixels, of a sway of 30
    assert np.array_equal(smooth(truth, 0), truth)


@pytest.mark.parametrize("seed", range(8))
def test_crop_holds_every_landmark_and_stays_in_the_frame(seed):
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(300, 1000)), int(rng.integers(300, 1000))
    short = min(width, height)
    size, sway = rng.uniform(60, 0.5 * short), rng.uniform(0, 0.15 * short)
    reach = size / 2 + sway
    points = moving_points(
        100, seed, (rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)), size, sway
    )
    x, y, side = crop_square(points, width, height)
    assert 0 <= x <= width - side and 0 <= y <= height - side
    assert (points >= [x, y]).all() and (points <= [x + side, y + side]).all()
    assert side >= min(2.19 * np.median(np.ptp(points, axis=1).max(axis=1)), short)
    assert side % 2 == 0 or side == short
    assert x % 2 == y % 2 == 0 or side == short or side - np.ptp(points, axis=(0, 1)).max() < 4


def test_crop_leaves_room_above_the_face_where_it_can():
    points = moving_points(50, centre=(500, 500), size=100, sway=0)
    x, y, side = crop_square(points, 1000, 1000)
    middle = (points.min(axis=(0, 1)) + points.max(axis=(0, 1))) / 2
    np.testing.assert_allclose((middle - [x, y]) / side, [0.5, 0.6], atol=0.01)
    assert side == pytest.approx(2.2 * np.ptp(points[0], axis=0).max(), abs=1)
    assert crop_square(points, 1000, 1000, margin=3).side == pytest.approx(side * 3 / 2.2, abs=2)


def test_faces_that_cannot_be_used_are_refused_with_their_size():
    wander = np.linspace(-400, 400, 100)[:, None, None] * [1, 0]
    with pytest.raises(UserError, match=r"wanders over 8\d\d pixels, the frame's shorter side has 300"):
        crop_square(moving_points(100, centre=(600, 150), sway=0) + wander, 1200, 300)
    points = moving_points(30, size=50)
    check_face(points, 400, 300, min_face=50)
    with pytest.raises(UserError, match=r"face too small: 50\.0 pixels from ear to ear, at least 64"):
        check_face(points, 400, 300, min_face=64)
    with pytest.raises(UserError, match="leaves the picture"):
        check_face(moving_points(30, centre=(390, 150), sway=0), 400, 300, min_face=64)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("squares") / "v.mp4"
    write_video(path, [np.roll(PHOTO, 3 * k, axis=1) for k in range(3)], crf=10)
    return path


@pytest.mark.parametrize("crop", [Crop(60, 20, 360), Crop(0, 0, 128), Crop(100, 44, 90), Crop(60, 20, 256)])
def test_squares_are_those_of_the_whole_frame(video, crop):
    """Shrunk, as they are, and enlarged; a shift by half a pixel costs more than 5 dB."""
    for short, whole in both_ways(video, crop, 128):
        assert short.shape == (128, 128, 3) and short.dtype == np.uint8 and short.flags.c_contiguous
        assert psnr(short, whole) > 41 and psnr(short[:, 1:], whole[:, :-1]) < psnr(short, whole) - 10
        assert np.abs(short.astype(float).mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 0.5


def test_squares_between_colour_samples_and_turned_videos_become_rgb_first(video, tmp_path):
    for crop in (Crop(61, 20, 200), Crop(60, 21, 200), Crop(60, 20, 201)):
        assert all(np.array_equal(short, whole) for short, whole in both_ways(video, crop, 64))
    phone = tmp_path / "phone.mp4"
    phone.write_bytes(video.read_bytes())
    turned(phone)
    assert (probe(phone).width, probe(phone).height) == (400, 500)
    assert psnr(next(read_frames(phone)), np.rot90(next(read_frames(video)), -1)) > 60
    assert all(np.array_equal(short, whole) for short, whole in both_ways(phone, Crop(20, 60, 300), 64))
