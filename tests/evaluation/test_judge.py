"""The Judge on drawn faces: the truth against itself, chunks, numbers by hand, and what cannot be measured."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import ALL, GROUND_TRUTH, ClipFacts, Judge, Measuring
from difftalk_pl.evaluation.motion import silent_frames
from difftalk_pl.evaluation.sync import sync_scores
from tests.backbones import write_backbone

SIZE, FRAMES = 128, 30
PERSON = perform(seed=0, number=900, seconds=FRAMES / 25)
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
def facts():
    return ClipFacts("clip", FRAMES, SIZE, PERSON.landmarks())


@pytest.fixture(scope="module")
def mask(facts):
    return np.stack([MaskPolicy("mouth_safe")(one, SIZE) for one in facts.landmarks])


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    weights = write_backbone(tmp_path_factory.mktemp("judge") / "drawn.pth")
    return Judge(Measuring(lpips="squeeze", lpips_weights=weights), CPU)


class FakeSync:
    """Embeddings that a test can work out by itself: of lips the mean of the picture, of speech nothing."""

    def open(self, landmarks, frames, size):
        self.landmarks, self.frames, self.size, self.means = landmarks, frames, size, []
        return self

    def add(self, frames):
        self.means += list(frames.reshape(len(frames), -1).mean(1))

    def finish(self, samples):
        if samples is None:
            raise UserError("no sound")
        return torch.tensor(self.means)[:, None].expand(-1, 2).float(), torch.zeros(len(self.means), 2)


def judged(judge, facts, true, mask, chunk=FRAMES, samples=PERSON.audio, **methods):
    clip = judge.open(facts)
    for start in range(0, len(true), chunk):
        part = slice(start, start + chunk)
        shown = {GROUND_TRUTH: true[part]}
        frames = {name: one[part] for name, one in methods.items()}
        clip.add(shown[GROUND_TRUTH], shown | frames, None if mask is None else mask[part])
    return clip.scores(dict.fromkeys([GROUND_TRUTH, *methods], samples))


def test_the_truth_against_itself(judge, facts, true, mask):
    score = judged(judge, facts, true, mask)[GROUND_TRUTH]
    assert score.values["psnr"] is None and score.values["mouth_psnr"] is None, "infinite"
    assert [score.values[name] for name in ("ssim", "mouth_ssim")] == pytest.approx([1, 1], abs=2e-6)
    assert score.values["lpips"] == score.values["mouth_lpips"] == score.values["lmd"] == 0
    assert score.values["jitter_landmarks"] == score.values["jitter_pixels"] == 1
    assert score.values["identity"] == pytest.approx(1, abs=1e-6)
    assert not score.failed and score.curve is None and list(score.values) == list(ALL)


def test_a_copy_is_judged_like_the_truth_itself(judge, facts, true, mask):
    scores = judged(judge, facts, true, mask, copy=true.copy())
    for name, value in scores[GROUND_TRUTH].values.items():
        assert scores["copy"].values[name] == (None if value is None else pytest.approx(value)), name


def test_chunks_change_nothing(judge, facts, true, noisy, mask):
    whole = judged(judge, facts, true, mask, noisy=noisy)["noisy"].values
    assert whole["jitter_pixels"] > 1.5 and whole["lpips"] > 0 and whole["lmd"] > 0
    known = {name: value for name, value in whole.items() if value is not None}
    for chunk in (1, 7):
        parts = judged(judge, facts, true, mask, chunk, noisy=noisy)["noisy"].values
        assert {name: value for name, value in parts.items() if value is not None} == pytest.approx(known, rel=1e-5)


def test_frames_are_compared_as_plain_numpy_would(judge, facts, true, noisy, mask):
    values = judged(judge, facts, true, mask, noisy=noisy)["noisy"].values
    squares = (noisy.astype(float) - true) ** 2
    psnr = [10 * np.log10(255**2 / one.mean()) for one in squares]
    mouth = [10 * np.log10(255**2 / one[where].mean()) for one, where in zip(squares, mask)]
    assert values["psnr"] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert values["mouth_psnr"] == pytest.approx(np.mean(mouth), abs=1e-4)
    second = [np.abs(np.diff(frames.astype(float).mean(-1), 2, axis=0)) for frames in (noisy, true)]
    still = mask[2:] & mask[1:-1] & mask[:-2]
    assert values["jitter_pixels"] == pytest.approx(second[0][still].mean() / second[1][still].mean(), rel=1e-5)


def test_without_landmarks_or_mask_the_rest_is_measured(judge, facts, true, noisy):
    score = judged(judge, facts._replace(landmarks=None), true, None, noisy=noisy)["noisy"]
    assert score.values["psnr"] > 20 and score.values["lpips"] > 0
    assert score.values["mouth_psnr"] is score.values["lmd"] is score.values["opening_correlation"] is None
    assert score.failed == dict.fromkeys(
        ("lmd", "identity", "jitter_landmarks", "silent_motion"), "no landmarks of the true video"
    )


def test_generated_frames_without_a_face_fail_where_a_face_is_needed(judge, facts, true, mask):
    score = judged(judge, facts, true, mask, grey=np.full_like(true, 127))["grey"]
    assert score.values["psnr"] is not None and score.values["identity"] is score.values["lmd"] is None
    assert "dlib finds a face in 0 of the 2 frames" in score.failed["lmd"]


def test_sync_is_judged_by_method_with_its_own_sound(facts, true, noisy):
    judge = Judge(Measuring(lpips=None, faces=False), CPU)
    judge.tools = judge.tools._replace(sync=FakeSync())
    clip = judge.open(facts)
    clip.add(true, {GROUND_TRUTH: true}, None)
    score = clip.scores({GROUND_TRUTH: PERSON.audio})[GROUND_TRUTH]
    means = torch.tensor(true.reshape(FRAMES, -1).mean(1))[:, None].expand(-1, 2).float()
    expected = sync_scores(means, torch.zeros_like(means))
    assert score.curve == pytest.approx(expected.curve.tolist())
    assert score.values["sync_offset"] == expected.offset
    assert score.values["sync_distance"] == pytest.approx(expected.distance)
    silent = judge.open(facts)
    silent.add(true, {GROUND_TRUTH: true}, None)
    score = silent.scores({GROUND_TRUTH: None})[GROUND_TRUTH]
    assert score.failed == dict.fromkeys(("sync_offset", "sync_confidence", "sync_distance"), "no sound")
    assert score.curve is None and score.values["ssim"] == pytest.approx(1, abs=1e-6)


def test_lips_that_move_in_silence_are_seen(facts, true):
    """A mouth that goes on in a silence counts, and nothing where there is none."""
    judge = Judge(Measuring(lpips=None), CPU)
    quiet = np.zeros(FRAMES * 640, np.int16)
    assert silent_frames(torch.from_numpy(quiet), FRAMES).all()
    moving = judged(judge, facts, true, None, samples=quiet)[GROUND_TRUTH].values["silent_motion"]
    frozen = facts._replace(landmarks=np.repeat(facts.landmarks[:1], FRAMES, 0))
    still = judged(judge, frozen, np.repeat(true[:1], FRAMES, 0), None, samples=quiet)[GROUND_TRUTH]
    assert moving > 0.2 and still.values["silent_motion"] == 0
    loud = (8000 * np.sin(np.arange(FRAMES * 640) / 5)).astype(np.int16)
    assert judged(judge, facts, true, None, samples=loud)[GROUND_TRUTH].values["silent_motion"] is None
