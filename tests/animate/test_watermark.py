"""The invisible mark: what it costs, what it survives, and that frames without it never seem to have it."""

import hashlib
from itertools import islice, pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from difftalk_pl.animate.watermark import FALSE_ALARM, FINE, Watermark, _pattern, _samples, _tolerance, read_mark
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video

MODEL = "a5c31f0099ab"


def footage(width=512, height=512, count=24, seed=0):
    """A wall with some texture and a bright ball that moves in front of it."""
    random = np.random.default_rng(seed)
    wall = sum(gaussian_filter(random.standard_normal((height, width)), s) * s * a for s, a in ((1, 8), (6, 30)))
    y, x = np.mgrid[:height, :width] / min(height, width)
    colour = np.array([1.0, 0.9, 0.8])
    for k in range(count):
        ball = np.clip(1 - 4 * np.hypot(y - 0.5, x - 0.4 - 0.1 * np.sin(k / 6)), 0, 1)
        yield np.clip((110 + wall + 120 * ball)[..., None] * colour, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def original():
    return list(footage())


@pytest.fixture(scope="module")
def marked(original):
    mark = Watermark(MODEL)
    return [mark.mark(frame) for frame in original]


def encoded(frames, path, crf):
    write_video(path, frames, crf=crf)
    return read_frames(path)


def scaled(frames, width, height):
    return [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames]


def found(frames, model=MODEL[:6]):
    reading = read_mark(frames)
    return reading.found and reading.sure and reading.model == model


@pytest.mark.parametrize("crf", [18, 23, 28])
def test_the_model_is_read_from_encoded_files(marked, tmp_path, crf):
    assert found(encoded(marked, tmp_path / "video.mp4", crf))


def test_half_the_size_and_another_shape_do_not_hide_it(marked, tmp_path):
    twice = list(encoded(marked, tmp_path / "once.mp4", 18))
    assert found(encoded(scaled(twice, 256, 256), tmp_path / "half.mp4", 23))
    assert found(scaled(marked, 640, 360)), "the grid is stretched with the picture"


@pytest.mark.parametrize("size", [(256, 256), (640, 482), (321, 257)])
def test_sizes_and_shapes(size, tmp_path):
    mark = Watermark(MODEL)
    assert found(encoded([mark.mark(frame) for frame in footage(*size)], tmp_path / "video.mp4", 23))


def test_the_change_is_small_grey_and_leaves_the_frame_given_alone(original, marked):
    before = original[0].copy()
    Watermark(MODEL).mark(original[0])
    assert np.array_equal(original[0], before)
    assert min(peak_signal_noise_ratio(*pair) for pair in zip(original, marked)) > 47
    change = marked[5].astype(int) - original[5]
    assert np.ptp(change, axis=2).max() == 0 and 0 < np.abs(change).max() <= 6


def test_small_frames_stay_above_43_db():
    mark = Watermark(MODEL)
    assert min(peak_signal_noise_ratio(frame, mark.mark(frame)) for frame in footage(256, 256, 10)) > 43


def test_channels_at_their_ends_do_not_wrap_around():
    frame = np.broadcast_to(np.array([255, 110, 0], np.uint8), (128, 128, 3)).copy()
    change = Watermark(MODEL).mark(frame).astype(int) - frame
    assert np.abs(change).max() <= 2 and change[..., 1].any()


def test_texture_tolerates_more_than_flat_areas_and_black_and_white_least():
    frame = np.full((512, 512, 3), 128, np.uint8)
    frame[:128], frame[128:256] = 0, 255
    frame[256:384] = np.random.default_rng(0).integers(98, 158, (128, 512, 1))
    black, white, texture, flat = np.split(_tolerance(_samples(frame), FINE), 4)
    assert flat[2:].min() == flat[2:].max() == 0.5 and texture[2:-2].min() > 1
    assert black[:-2].max() == white[2:-2].max() == pytest.approx(0.1)


def test_the_mark_is_fitted_to_its_picture():
    """The change that was made for this picture says more than one that was made for another, at the same size."""
    one, other = (next(footage(256, 256, 1, seed)).astype(float) for seed in (0, 9))
    own, foreign = (Watermark(MODEL).mark(frame.astype(np.uint8)) - frame for frame in (one, other))
    foreign *= own.std() / foreign.std()
    fitted, blind = (read_mark([np.clip(one + np.rint(c), 0, 255).astype(np.uint8)]).z for c in (own, foreign))
    assert fitted > 1.2 * blind > 5, (fitted, blind)


def test_nothing_flickers(original, marked):
    """Between frames, few pixels of the change move, and by one level."""
    changes = [a.astype(int) - b for a, b in zip(marked, original)]
    steps = [np.abs(after - before) for before, after in pairwise(changes)]
    assert max(step.max() for step in steps) <= 2
    assert np.mean([(step > 0).mean() for step in steps]) < 0.05


def test_frames_without_a_mark_have_none(original):
    readings = [read_mark(original)]
    readings += [read_mark(footage(200, 150, 2, seed)) for seed in range(12)]
    readings += [
        read_mark(np.random.default_rng(seed).integers(0, 256, (1, 90, 90, 3), np.uint8)) for seed in range(12)
    ]
    readings += [read_mark([np.full((64, 64, 3), 77, np.uint8)]), read_mark([])]
    assert not any(reading.found for reading in readings)
    assert all(reading.model is None and reading.false_alarm > 1e3 * FALSE_ALARM for reading in readings)


def test_the_bound_on_false_alarms_holds_for_the_best_of_all_words():
    """z without a mark is the best of 2 x 256^3 words: it has to stay under where the bound is small, and near it."""
    random = np.random.default_rng(1)
    values = [read_mark(random.integers(0, 256, (1, 256, 256, 3), np.uint8)).z for _ in range(30)]
    assert 4 < np.mean(values) < 5.9 and max(values) < 6.5


def test_models_are_told_apart_by_a_single_bit(original):
    for model in ("a5c31f", "a5c31e", "25c31f", "000000", "ffffff"):
        mark = Watermark(model)
        assert found([mark.mark(frame) for frame in original[:3]], model)


def test_any_part_of_a_video_is_enough(marked):
    assert found(marked[:4]) and found(marked[17:20]) and found([marked[-1]])


def test_a_frame_depends_on_no_later_one_and_a_new_video_starts_anew(original, marked):
    mark = Watermark(MODEL)
    assert all(np.array_equal(mark.mark(frame), whole) for frame, whole in zip(original[:10], marked))
    other, last = next(footage(300, 200)), Watermark(MODEL)
    last.mark(original[0])
    assert np.array_equal(last.mark(other), Watermark(MODEL).mark(other)), "frames of another size"


@pytest.mark.parametrize("grid, digest", [(64, "3a1497bf260cd288"), (128, "00b8080cfff15fcc")])
def test_the_layout_never_changes(grid, digest):
    """Marks in files that are out there have to stay readable. Who changes this on purpose changes the key, too."""
    byte, place, chip = _pattern(grid)
    assert np.ptp(np.bincount(byte)) <= 1, "each byte has a third of the cells"
    content = bytes((byte * 2 + (chip > 0)).tolist()) + bytes(place.tolist())
    assert hashlib.sha256(content).hexdigest().startswith(digest)


@pytest.mark.parametrize("model", ["", "12345", "xyzxyz", "a5c31f!"])
def test_what_is_no_hash_is_refused(model):
    with pytest.raises(UserError, match="hexadecimal digits"):
        Watermark(model)


def test_a_real_clip(real_clips, tmp_path):
    frames = list(islice(read_frames(real_clips / "hdtf_aoc.mp4"), 50))
    assert not read_mark(frames).found
    mark = Watermark(MODEL)
    small = [
        np.asarray(Image.fromarray(frame).resize((256, 256)))
        for frame in encoded((mark.mark(frame) for frame in frames), tmp_path / "marked.mp4", 18)
    ]
    assert found(read_frames(tmp_path / "marked.mp4"))
    assert found(encoded(small, tmp_path / "small.mp4", 23))
