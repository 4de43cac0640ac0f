"""The Judge on drawn faces: the truth against itself, chunks, numbers by hand, and what cannot be measured."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation import judge as judges
from difftalk_pl.evaluation.judge import ALL, GROUND_TRUTH, ClipJudge, Judge, Measuring
from difftalk_pl.evaluation.sync import sync_scores
from tests.backbones import write_backbone

SIZE, FRAMES = 128, 18
PERSON = perform(seed=0, number=900, seconds=FRAMES / 25)
LANDMARKS = PERSON.landmarks()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def true():
    return np.stack(list(PERSON.frames(SIZE)))


@pytest.fixture(scope="module")
def noisy(true):
    """The true frames with noise that is new in every frame, in the mouth's region and outside of it."""
    noise = np.random.default_rng(0).normal(0, 4, true.shape)
    return np.clip(true + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    return np.stack([MaskPolicy("mouth_safe")(one, SIZE) for one in LANDMARKS])


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    weights = write_backbone(tmp_path_factory.mktemp("judge") / "drawn.pth")
    return Judge(Measuring(lpips="squeeze", lpips_weights=weights), CPU)


class FakeSync:
    """Embeddings that a test can work out by itself: of lips the mean of the picture, of speech zeros."""

    crop = "whole_frame"

    def __init__(self, *_):
        self.means = []

    def add(self, frames):
        self.means += list(frames.reshape(len(frames), -1).mean(1))

    def finish(self, samples):
        if samples is None:
            raise UserError("no sound")
        return torch.tensor(self.means)[:, None].expand(-1, 2).float(), torch.zeros(len(self.means), 2)


def judged(judge, true, mask, chunk=FRAMES, samples=PERSON.audio, landmarks=LANDMARKS, **methods):
    clip = ClipJudge(judge, FRAMES, SIZE, landmarks)
    for start in range(0, len(true), chunk):
        part = slice(start, start + chunk)
        shown = true[part]
        clip.add(shown, {name: one[part] for name, one in methods.items()}, None if mask is None else mask[part])
    return clip.scores(dict.fromkeys([GROUND_TRUTH, *methods], samples))


def test_the_truth_against_itself_and_against_a_copy(judge, true, mask):
    scores = judged(judge, true, mask, copy=true.copy())
    truth = scores[GROUND_TRUTH]
    assert truth.values["psnr"] is None and truth.values["mouth_psnr"] is None, "infinite"
    assert [truth.values[name] for name in ("ssim", "mouth_ssim")] == pytest.approx([1, 1], abs=2e-6)
    assert truth.values["lpips"] == truth.values["mouth_lpips"] == truth.values["lmd"] == 0
    assert truth.values["jitter_landmarks"] == truth.values["jitter_pixels"] == 1
    assert truth.values["identity"] == pytest.approx(1, abs=1e-6)
    assert not truth.failed and truth.curve is None and list(truth.values) == list(ALL)
    for name, value in truth.values.items():
        assert scores["copy"].values[name] == (None if value is None else pytest.approx(value)), name


def test_frames_are_compared_as_plain_numpy_would_whatever_the_chunks(judge, true, noisy, mask):
    whole = judged(judge, true, mask, noisy=noisy)["noisy"].values
    squares = (noisy.astype(float) - true) ** 2
    psnr = [10 * np.log10(255**2 / one.mean()) for one in squares]
    mouth = [10 * np.log10(255**2 / one[where].mean()) for one, where in zip(squares, mask)]
    assert whole["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
    assert whole["mouth_psnr"] == pytest.approx(np.mean(mouth), rel=1e-5)
    second = [np.abs(np.diff(frames.astype(float).mean(-1), 2, axis=0)) for frames in (noisy, true)]
    still = mask[2:] & mask[1:-1] & mask[:-2]
    assert whole["jitter_pixels"] == pytest.approx(second[0][still].mean() / second[1][still].mean(), rel=1e-4)
    assert whole["lpips"] > 0 and whole["lmd"] > 0 and whole["opening_correlation"] > 0.5
    known = {name: value for name, value in whole.items() if value is not None}
    parts = judged(judge, true, mask, 7, noisy=noisy)["noisy"].values
    assert {name: value for name, value in parts.items() if value is not None} == pytest.approx(known, rel=1e-4)


def test_what_cannot_be_measured_is_null_and_has_its_reason(judge, true, noisy, mask):
    score = judged(judge, true, None, landmarks=None, noisy=noisy)["noisy"]
    assert score.values["psnr"] > 20 and score.values["lpips"] > 0
    assert score.values["mouth_psnr"] is score.values["lmd"] is score.values["opening_correlation"] is None
    reasons = dict.fromkeys(("lmd", "identity", "jitter_landmarks", "silent_motion"), "no landmarks of the true video")
    assert score.failed == reasons
    score = judged(judge, true, mask, grey=np.full_like(true, 127))["grey"]
    assert score.values["psnr"] is not None and score.values["identity"] is score.values["lmd"] is None
    assert "dlib finds a face in 0 of the 1 frames" in score.failed["lmd"]


def test_sync_is_measured_with_the_sound_of_the_method(true, monkeypatch):
    judge = Judge(Measuring(lpips=None, faces=False), CPU)
    judge.sync = FakeSync()
    monkeypatch.setattr(judges, "SyncStream", FakeSync)
    score = judged(judge, true, None)[GROUND_TRUTH]
    means = torch.tensor(true.reshape(FRAMES, -1).mean(1))[:, None].expand(-1, 2).float()
    expected = sync_scores(means, torch.zeros_like(means))
    assert score.curve == pytest.approx(expected.curve.tolist())
    assert score.values["sync_offset"] == expected.offset
    assert score.values["sync_distance"] == pytest.approx(expected.distance)
    score = judged(judge, true, None, samples=None)[GROUND_TRUTH]
    assert score.failed == dict.fromkeys(("sync_offset", "sync_confidence", "sync_distance"), "no sound")
    assert score.curve is None and score.values["ssim"] == pytest.approx(1, abs=1e-6)


def test_lips_that_move_in_silence_are_measured(true):
    judge = Judge(Measuring(lpips=None), CPU)
    quiet = np.zeros(FRAMES * 640, np.int16)
    moving = judged(judge, true, None, samples=quiet)[GROUND_TRUTH].values["silent_motion"]
    frozen = np.repeat(LANDMARKS[:1], FRAMES, 0)
    still = judged(judge, np.repeat(true[:1], FRAMES, 0), None, samples=quiet, landmarks=frozen)[GROUND_TRUTH]
    assert moving > 0.2 and still.values["silent_motion"] == 0
