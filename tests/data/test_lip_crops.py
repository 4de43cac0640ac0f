"""What SyncNet sees of a frame, against the published formula worked out by hand and against plain loops."""

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.data.lip_sync import crop_boxes, lip_frames
from difftalk_pl.faces.detect import box_of

RANDOM = np.random.default_rng(0)
SIZE = 200


def faces(frames: int) -> np.ndarray:
    """Landmarks that wander: (T, 68, 2), fractions."""
    shape = RANDOM.uniform(-0.15, 0.15, (68, 2))
    return 0.5 + shape + RANDOM.normal(0, 0.01, (frames, 1, 2)) + RANDOM.normal(0, 0.002, (frames, 68, 2))


def published_slices(boxes: np.ndarray, cs: float = 0.40) -> list[tuple[int, int, int, int]]:
    """Rows and columns of the padded frame that run_pipeline.py cuts, less the padding; boxes x1, y1, x2, y2."""

    def median(values: list[float], at: int) -> float:
        return sorted(values[k] if 0 <= k < len(values) else 0.0 for k in range(at - 6, at + 7))[6]

    s = [max(y2 - y1, x2 - x1) / 2 for x1, y1, x2, y2 in boxes]
    y, x = [(y1 + y2) / 2 for _, y1, _, y2 in boxes], [(x1 + x2) / 2 for x1, _, x2, _ in boxes]
    cuts = []
    for frame in range(len(boxes)):
        bs = median(s, frame)
        bsi = int(bs * (1 + 2 * cs))
        my, mx = median(y, frame) + bsi, median(x, frame) + bsi
        rows = int(my - bs), int(my + bs * (1 + 2 * cs))
        columns = int(mx - bs * (1 + cs)), int(mx + bs * (1 + cs))
        cuts.append((columns[0] - bsi, rows[0] - bsi, columns[1] - bsi, rows[1] - bsi))
    return cuts


def test_boxes_are_the_published_ones():
    points = faces(30)
    boxes = [tuple(map(float, box_of(one * SIZE))) for one in points]
    ours = crop_boxes(points, SIZE)
    assert ours.shape == (30, 4) and ours.dtype == int
    assert [tuple(box) for box in ours.tolist()] == published_slices(boxes)


def test_one_still_face_by_hand():
    """A box of 100 pixels around (100, 100): 70 to both sides, 50 up and 90 down."""
    points = np.zeros((40, 68, 2))
    points[:, 0], points[:, 1:] = (-50 / 1.05, -50 / 1.05), (50 / 1.05, 50 / 1.05)
    points += np.array([100.0, 100.0 + 0.09 * 100 / 1.05])
    assert box_of(points[0]) == pytest.approx([50, 50, 150, 150])
    assert np.abs(crop_boxes(points / SIZE, SIZE) - [30, 50, 170, 190]).max() <= 1


def test_a_face_that_jumps_for_a_moment_does_not_move_the_crop():
    points = faces(1).repeat(40, axis=0)
    still = crop_boxes(points, SIZE)[6:-6]
    points[20:24] += 0.2
    assert (crop_boxes(points, SIZE)[6:-6] == still).all()


@pytest.mark.parametrize("frames", [1, 2, 5, 12, 13])
def test_short_clips_have_boxes_too(frames):
    boxes = crop_boxes(faces(frames), SIZE)
    assert boxes.shape == (frames, 4) and (boxes[:, 2:] - boxes[:, :2] > SIZE / 4).all()


@pytest.mark.parametrize("side", [64, 96, 224])
def test_a_whole_frame_is_pillows(side):
    frames = RANDOM.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    lips = lip_frames(frames, None, side)
    assert lips.shape == (3, 3, side, side) and lips.dtype == np.uint8
    for frame, seen in zip(frames, lips):
        plain = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
        for channel in range(3):
            assert (seen[2 - channel] == np.asarray(plain)[..., channel]).all(), "blue comes first"


def test_a_frame_of_the_right_side_is_left_alone():
    frames = RANDOM.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert (lip_frames(frames, None, 64)[:, ::-1] == frames.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize("box", [(10, 20, 90, 100), (-30, -10, 70, 90), (60, 50, 160, 150), (-20, -20, 120, 120)])
def test_a_crop_is_what_padding_with_grey_first_gives(box):
    frames = RANDOM.integers(0, 256, (2, 100, 100, 3), dtype=np.uint8)
    padded = np.pad(frames, ((0, 0), (80, 80), (80, 80), (0, 0)), constant_values=110)
    left, top, right, bottom = (edge + 80 for edge in box)
    cut = np.ascontiguousarray(padded[:, top:bottom, left:right])
    assert (lip_frames(frames, np.array([box, box]), 64) == lip_frames(cut, None, 64)).all()


def test_chunks_are_the_clip_at_once():
    frames, boxes = RANDOM.integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8), crop_boxes(faces(20), SIZE)
    parts = [lip_frames(frames[at : at + 7], boxes[at : at + 7], 64) for at in range(0, 20, 7)]
    assert (np.concatenate(parts) == lip_frames(frames, boxes, 64)).all()


def test_boxes_of_other_frames_are_refused():
    with pytest.raises(ValueError, match="zip"):
        lip_frames(np.zeros((3, 64, 64, 3), np.uint8), np.array([[0, 0, 64, 64]] * 2), 64)
