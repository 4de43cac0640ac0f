"""The synthetic clips, against what is measured in their sound and pictures without the code that made them."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, minimum_filter1d

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.features.kinds import MFCC
from difftalk_pl.data.features.windows import audio_windows
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.synthetic.dataset import perform, synthesize
from difftalk_pl.data.synthetic.drawing import draw, draw_background
from difftalk_pl.data.synthetic.geometry import Pose, draw_identity, landmarks
from difftalk_pl.errors import UserError

SECONDS = 8.0
FRAME_MEANS = [
    [115.83, 101.08, 103.3],
    [115.58, 100.88, 103.21],
    [115.06, 100.22, 102.63],
    [115.31, 100.38, 102.75],
    [115.8, 101.29, 103.74],
]
POINTS = [[0.5261, 0.9329], [0.5193, 0.5907], [0.3873, 0.7783], [0.5218, 0.7199], [0.5241, 0.8313]]
LEVELS = [13.3, 1241.6, 1669.4, 4629.2, 2779.3, 2176.7, 2413.7, 4270.6, 1932.0, 13.1]


@pytest.fixture(scope="module")
def performances():
    """Twelve people who speak for eight seconds each."""
    return [perform(seed=3, number=number, seconds=SECONDS) for number in range(12)]


def openings(clip) -> np.ndarray:
    """The distance of landmarks 62 and 66 as a share of the widest mouth of that face, (T,)."""
    points = clip.landmarks()
    return np.linalg.norm(points[:, 62] - points[:, 66], axis=1) / np.array(
        [clip.who.face_width * pose.scale * clip.who.mouth_gap for pose in clip.poses]
    )


def test_clips_are_those_that_the_shipped_demo_was_trained_on():
    """Numbers of the first version; with a tolerance, as sines and square roots differ between processors."""
    clip = perform(seed=0, number=1, seconds=2.0)
    frames, points = np.stack(list(clip.frames(64))), clip.landmarks()
    np.testing.assert_allclose(frames[::12].mean((1, 2)), FRAME_MEANS, atol=0.1)
    np.testing.assert_allclose(points[25, [8, 30, 48, 62, 66]], POINTS, atol=2e-4)
    levels = [np.sqrt(np.square(part.astype(float)).mean()) for part in np.split(clip.audio, 10)]
    np.testing.assert_allclose(levels, LEVELS, rtol=0.01)


def test_neither_sound_nor_mouth_lags(performances):
    """Loudness around k / 25 s and the opening of frame k agree best without a shift, to a small part of a frame."""
    shifts, agreement = range(-2, 3), []
    for clip in performances:
        padded, mouth = np.pad(clip.audio.astype(float), 80), openings(clip)
        loud = np.array([np.sqrt(np.mean(padded[640 * k : 640 * k + 160] ** 2)) for k in range(len(clip.poses))])
        agreement.append([np.corrcoef(np.roll(mouth, shift)[3:-3], loud[3:-3])[0, 1] for shift in shifts])
    curve = np.mean(agreement, axis=0)
    assert np.argmax(curve) == 2, curve
    early, best, late = curve[1:4]
    assert abs(0.5 * (early - late) / (early - 2 * best + late)) < 0.2  # the parabola's vertex, in frames


def test_silence_is_a_closed_mouth_and_speech_moves_it(performances):
    mouths = [openings(clip) for clip in performances]
    for clip, mouth in zip(performances, mouths, strict=True):
        loud = np.sqrt(np.mean(clip.audio.reshape(-1, 160).astype(float) ** 2, axis=1))  # 10 ms each
        assert loud.min() > 1, "a pause is faint noise, not digital zero"
        core = minimum_filter1d((loud < 2.5 * clip.voice.floor).astype(int), 9)  # more than 80 ms of silence
        inside = binary_dilation(core.astype(bool), np.ones(9))
        frames = np.flatnonzero(inside[np.minimum(4 * np.arange(len(mouth)), len(inside) - 1)])
        assert mouth[frames].max(initial=0) < 1e-4
        assert 3000 < np.abs(clip.audio.astype(int)).max() < 32000
    mouth = np.concatenate(mouths)
    assert mouth.std() > 0.25 and mouth.max() > 0.9 and 0.2 < np.mean(mouth < 0.02) < 0.5


def test_the_landmarks_measure_the_drawn_mouth(performances, size=64):
    """Dark pixels near the mouth are its inside: their number follows the landmarks for every face."""
    for clip in performances[::3]:
        points, mouth, dark = clip.landmarks(), [], []
        for frame, at in zip(clip.frames(size), points, strict=True):
            left, right = at[48:68].min(0) * size, at[48:68].max(0) * size
            patch = frame[int(left[1]) : int(right[1]) + 1, int(left[0]) : int(right[0]) + 1].astype(float)
            dark.append(np.clip((72 - patch.mean(axis=2)) / 56, 0, 1).sum())
            mouth.append(np.linalg.norm(at[62] - at[66]))
        dark, mouth = np.array(dark), np.array(mouth)
        assert np.corrcoef(dark, mouth)[0, 1] > 0.97
        assert dark[mouth < 1e-5].max() < 0.02 * dark.max(), "closed lips show no inside"


def test_only_the_masked_region_shows_the_mouth():
    """With the same head pose, pixels outside both masks and the landmarks that are kept do not show the opening."""
    for seed in range(8):
        who = draw_identity(np.random.default_rng(seed))
        background = draw_background(who, 128)
        closed, wide = Pose(angle=0.05), Pose(angle=0.05, opening=1.0, width=0.6)
        before, after = landmarks(who, closed), landmarks(who, wide)
        kept = [*range(0, 5), *range(12, 48)]
        np.testing.assert_array_equal(before[kept], after[kept])
        assert after[8, 1] > before[8, 1] + 0.02, "the chin falls"
        changed = (draw(who, closed, background) != draw(who, wide, background)).any(axis=2)
        assert changed.any()
        for name in ("mouth_safe", "below_nose"):
            assert not (changed & ~MaskPolicy(name)(after, 128)).any(), (seed, name)


def test_the_sound_tells_the_mouth_of_unknown_people(performances):
    """Ridge regression from MFCC windows to the opening, on 8 people, for 4 others; other sound tells nothing."""

    def windows(clip):
        return audio_windows(MFCC(clip.audio), np.arange(len(clip.poses))).reshape(len(clip.poses), -1)

    inputs, targets = [windows(clip) for clip in performances], [openings(clip) for clip in performances]
    x, y = np.concatenate(inputs[:8]).astype(float), np.concatenate(targets[:8])
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = np.c_[(x - mean) / scale, np.ones(len(x))]
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ y)

    def correlation(heard, seen):
        return np.corrcoef(np.c_[(heard - mean) / scale, np.ones(len(heard))] @ weights, seen)[0, 1]

    right = [correlation(heard, seen) for heard, seen in zip(inputs[8:], targets[8:], strict=True)]
    wrong = [correlation(inputs[a], targets[b]) for a in range(8, 12) for b in range(8, 12) if a != b]
    assert min(right) > 0.93, right
    assert abs(np.mean(wrong)) < 0.12, wrong


def files(root: Path, name: str) -> dict[str, bytes]:
    folder = root / "clips" / name
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_clip_is_a_function_of_seed_and_number(tmp_path):
    """The same bytes, whoever makes the clip and whatever is made beside it; another seed, other bytes."""
    synthesize(tmp_path / "a", clips=3, seconds=1.0, workers=2, seed=7)
    synthesize(tmp_path / "b", clips=1, seconds=1.0, workers=1, seed=7, first_identity=2)
    synthesize(tmp_path / "c", clips=1, seconds=1.0, workers=1, seed=8, first_identity=2)
    a, b, c = (files(tmp_path / root, "synthetic_002") for root in "abc")
    assert set(a) == {"video.mp4", "audio.wav", "landmarks.npy", "features/mfcc.npy", "clip.json"}
    assert a == b and all(a[name] != c[name] for name in a)


def test_a_dataset_opens_and_is_continued_by_the_same_clips_only(tmp_path):
    synthesize(tmp_path, clips=1, seconds=1.0, workers=1)
    stamp = (tmp_path / "clips/synthetic_000/video.mp4").stat().st_mtime_ns
    synthesize(tmp_path, clips=2, seconds=1.0, workers=1)
    assert (tmp_path / "clips/synthetic_000/video.mp4").stat().st_mtime_ns == stamp
    clips, drawn = open_clips(tmp_path), perform(seed=0, number=1, seconds=1.0)
    assert [(clip.name, clip.identity) for clip in clips] == [(f"synthetic_00{k}",) * 2 for k in (0, 1)]
    np.testing.assert_array_equal(clips[1].audio(), drawn.audio)
    np.testing.assert_array_equal(clips[1].landmarks, drawn.landmarks())
    reader = clips[1].reader()
    assert len(reader) == 25
    error = np.stack([reader[k] - frame.astype(float) for k, frame in enumerate(drawn.frames(64))])
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # chroma is halved in H.264
    with pytest.raises(UserError, match=r"synthetic_000.*--out"):
        synthesize(tmp_path, clips=1, seconds=1.0, workers=1, seed=1)
    with pytest.raises(UserError, match="64 pixels"):
        synthesize(tmp_path, clips=1, seconds=1.0, size=128, workers=1)
