"""Measures against scikit-image, closed forms and drawn faces whose opening is known."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.evaluation.frames import psnr, similarity_map, ssim
from difftalk_pl.evaluation.opening import correlation, dark_opening, true_opening


@pytest.fixture
def pair():
    torch.manual_seed(0)
    true = torch.rand(3, 3, 48, 48) * 2 - 1
    return (true + 0.2 * torch.randn_like(true)).clamp(-1, 1), true


def test_psnr_is_that_of_scikit_image(pair):
    ours = psnr(*pair)
    theirs = [peak_signal_noise_ratio(t.numpy(), g.numpy(), data_range=2) for g, t in zip(*pair)]
    assert ours.numpy() == pytest.approx(theirs, abs=1e-6)


def test_psnr_under_a_mask_sees_nothing_else(pair):
    generated, true = pair
    mask = torch.zeros(3, 1, 48, 48)
    mask[..., 10:20, 5:40] = 1
    inside = psnr(generated[..., 10:20, 5:40], true[..., 10:20, 5:40])
    assert torch.allclose(psnr(generated, true, mask), inside)
    disturbed = torch.where(mask > 0, generated, -generated)
    assert torch.equal(psnr(disturbed, true, mask), psnr(generated, true, mask))


def test_equal_frames_have_infinite_psnr_and_ssim_one(pair):
    _, true = pair
    assert torch.isinf(psnr(true, true)).all()
    assert ssim(similarity_map(true, true)).numpy() == pytest.approx(1)


def test_ssim_is_that_of_scikit_image_away_from_the_border(pair):
    mask = torch.zeros(3, 1, 48, 48)
    mask[..., 8:40, 8:40] = 1
    for number, (generated, true) in enumerate(zip(*pair)):
        _, theirs = structural_similarity(
            generated.double().numpy(),
            true.double().numpy(),
            data_range=2,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert float(ssim(similarity_map(*pair), mask)[number]) == pytest.approx(theirs[:, 8:40, 8:40].mean(), abs=1e-6)


@pytest.mark.parametrize("size", [64, 128])
def test_the_opening_seen_in_the_picture_follows_the_known_one(size):
    clip = perform(seed=3, number=5, seconds=4)
    frames = torch.from_numpy(np.stack(list(clip.frames(size)))).movedim(-1, 1) / 127.5 - 1
    landmarks = torch.from_numpy(clip.landmarks())
    seen, known = dark_opening(frames, landmarks), true_opening(landmarks)
    assert correlation(seen, known) > 0.95
    assert seen[known == 0].max() < 0.3 * seen.max()


def test_the_window_of_the_opening_does_not_hang_on_the_mouth():
    clip = perform(seed=3, number=6, seconds=1)
    frames = torch.from_numpy(np.stack(list(clip.frames(64)))).movedim(-1, 1) / 127.5 - 1
    landmarks = torch.from_numpy(clip.landmarks())
    moved = landmarks.clone()
    moved[:, 48:] += 0.2
    moved[:, :17] -= 0.1
    assert torch.equal(dark_opening(frames, moved), dark_opening(frames, landmarks))


def test_correlation_is_numpys():
    x, y = torch.randn(50), torch.randn(50)
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert np.isnan(correlation(x, torch.ones(50)))
