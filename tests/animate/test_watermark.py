"""The invisible watermark: what it costs, what it survives, that other frames never seem to have it; its command."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from difftalk_pl.animate.watermark import Watermark, _pattern, read_mark, watermark
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import TAG, write_video

MODEL = "a5c31f0099ab"


def footage(width=512, height=512, count=24, seed=0):
    """A wall with some texture and a bright ball that moves in front of it."""
    random = np.random.default_rng(seed)
    wall = sum(gaussian_filter(random.standard_normal((height, width)), s) * s * a for s, a in ((1, 8), (6, 30)))
    y, x = np.mgrid[:height, :width] / min(height, width)
    for k in range(count):
        ball = np.clip(1 - 4 * np.hypot(y - 0.5, x - 0.4 - 0.1 * np.sin(k / 6)), 0, 1)
        yield np.clip((110 + wall + 120 * ball)[..., None] * [1.0, 0.9, 0.8], 0, 255).astype(np.uint8)


def marked_by(model, frames):
    mark = Watermark(model)
    return [mark.mark(frame) for frame in frames]


@pytest.fixture(scope="module")
def original():
    return list(footage())


@pytest.fixture(scope="module")
def marked(original):
    return marked_by(MODEL, original)


def encoded(frames, path, crf):
    write_video(path, frames, crf=crf)
    return read_frames(path)


def scaled(frames, width, height):
    return [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames]


def found(frames, model=MODEL[:6]):
    reading = read_mark(frames)
    return reading.sure and reading.model == model


def test_the_model_is_read_after_encoding_scaling_and_cutting(marked, tmp_path):
    assert found(encoded(marked, tmp_path / "video.mp4", 28))
    twice = list(encoded(marked, tmp_path / "once.mp4", 18))
    assert found(encoded(scaled(twice, 256, 256), tmp_path / "half.mp4", 23))
    assert found(scaled(marked, 640, 360)), "the grid is stretched with the picture"
    assert found(marked[:4]) and found([marked[-1]])
    assert found(encoded(marked_by(MODEL, footage(321, 257)), tmp_path / "odd.mp4", 23))


def test_the_change_is_small_and_grey_and_does_not_flicker(original, marked):
    before = original[0].copy()
    Watermark(MODEL).mark(original[0])
    assert np.array_equal(original[0], before)
    assert min(peak_signal_noise_ratio(*pair) for pair in zip(original, marked)) > 47
    changes = [a.astype(int) - b for a, b in zip(marked, original)]
    assert max(np.ptp(change, axis=2).max() for change in changes) == 0
    steps = [np.abs(after - before) for before, after in pairwise(changes)]
    assert max(step.max() for step in steps) <= 2 and np.mean([(step > 0).mean() for step in steps]) < 0.05
    small = list(footage(256, 256, 10))
    assert min(peak_signal_noise_ratio(*pair) for pair in zip(small, marked_by(MODEL, small))) > 43


def test_frames_without_a_mark_have_none(original):
    """z without a mark is the best of 2 x 256^3 words, about 5; found is 7.9."""
    noise = (np.random.default_rng(seed).integers(0, 256, (1, 256, 256, 3), np.uint8) for seed in range(30))
    readings = [read_mark(frames) for frames in (original, [np.full((64, 64, 3), 77, np.uint8)], [], *noise)]
    readings += [read_mark(footage(200, 150, 2, seed)) for seed in range(12)]
    assert all(reading.model is None and reading.z < 6.8 for reading in readings)


@pytest.mark.parametrize("grid, digest", [(64, "3a1497bf260cd288"), (128, "00b8080cfff15fcc")])
def test_the_layout_never_changes(grid, digest):
    """Marks in published files have to stay readable. A change on purpose changes the key, too."""
    byte, place, chip = _pattern(grid)
    assert np.ptp(np.bincount(byte)) <= 1, "each byte has a third of the cells"
    content = bytes((byte * 2 + (chip > 0)).tolist()) + bytes(place.tolist())
    assert hashlib.sha256(content).hexdigest().startswith(digest)


def test_the_command_tells_marked_from_unmarked_and_a_bad_file_does_not_stop_it(tmp_path, capsys):
    frames = list(footage(256, 256, 25))
    write_video(tmp_path / "marked.mp4", marked_by("3f09a7", frames), tags={TAG: "about"})
    write_video(tmp_path / "plain.mp4", frames[:10])
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="1 of 3 videos could not be read"):
        watermark([tmp_path / f"{name}.mp4" for name in ("bad", "marked", "plain")])
    bad, marked, plain = capsys.readouterr().out.splitlines()
    assert "marked.mp4: marked, model 3f09a7, z " in marked and marked.endswith("; metadata: about")
    assert "plain.mp4: not marked, z " in plain and plain.endswith("; metadata: none of difftalk_pl")
    assert "bad.mp4" in bad
