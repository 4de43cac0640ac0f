"""PSNR and SSIM of streams of frames against scikit-image, frame by frame."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from difftalk_pl.evaluation.frames import PSNR, SSIM, psnr, similarity_map

BORDER = 5  # half of SSIM's window
SCIKIT = {
    "data_range": 2,
    "channel_axis": 0,
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
}


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    true = torch.nn.functional.interpolate(torch.rand(7, 3, 12, 12, generator=generator), 48, mode="bicubic") * 2 - 1
    noise = torch.randn(7, 3, 48, 48, generator=generator) * torch.linspace(0.02, 0.5, 7)[:, None, None, None]
    return (true + noise).clamp(-1, 1), true.clamp(-1, 1)


def scikit_ssim(generated, true):
    """Of the whole frame: scikit-image leaves the border out of its mean, so the frame is mirrored beyond its edges
    first."""
    wider = [
        np.pad(frame.double().numpy(), ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), mode="reflect")
        for frame in (generated, true)
    ]
    return structural_similarity(*wider, **SCIKIT)


def scikit_psnr(generated, true):
    return peak_signal_noise_ratio(true.double().numpy(), generated.double().numpy(), data_range=2)


def streamed(kind, *streams, size=3):
    """In chunks of `size` frames."""
    metric = kind()
    for generated, true, *mask in zip(*(stream.split(size) for stream in streams)):
        metric.update(*((similarity_map(generated, true),) if kind is SSIM else (generated, true)), *mask)
    return float(metric.compute())


@pytest.mark.parametrize(("kind", "theirs", "bound"), [(PSNR, scikit_psnr, 1e-9), (SSIM, scikit_ssim, 1e-6)])
def test_the_mean_over_a_stream_is_that_of_scikit_image(pair, kind, theirs, bound, record_difference):
    each = [theirs(*frames) for frames in zip(*pair)]
    assert np.ptp(each) > 0.1, "frames that differ in quality, so that another kind of mean would show"
    record_difference(f"{kind.__name__} against scikit-image", abs(streamed(kind, *pair) - np.mean(each)), bound)


def test_psnr_is_the_mean_over_frames_and_not_of_the_mean_error(pair):
    pooled = psnr(*(frames.reshape(1, 3, -1, 48) for frames in pair))
    assert streamed(PSNR, *pair) > float(pooled) + 1


@pytest.mark.parametrize("kind", [PSNR, SSIM])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_change_nothing(pair, kind, masked):
    mask = (torch.rand(7, 1, 48, 48, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    streams = (*pair, mask) if masked else pair
    whole = streamed(kind, *streams, size=7)
    assert whole != pytest.approx(streamed(kind, *pair, size=7)) or not masked
    for size in (1, 2, 3):
        assert streamed(kind, *streams, size=size) == pytest.approx(whole, abs=1e-7)


def test_under_a_mask_psnr_is_scikit_images_of_the_part(pair, record_difference):
    mask = torch.zeros(7, 1, 48, 48)
    mask[..., 20:40, 10:30] = 1
    part = [frames[..., 20:40, 10:30] for frames in pair]
    expected = np.mean([scikit_psnr(*frames) for frames in zip(*part)])
    record_difference("PSNR of a region against scikit-image", abs(streamed(PSNR, *pair, mask) - expected), 1e-9)


def test_under_a_mask_ssim_is_the_mean_of_scikit_images_map(pair, record_difference):
    mask = torch.zeros(7, 1, 48, 48)
    mask[..., 20:40, 10:30] = 1
    maps = [
        structural_similarity(*(frame.double().numpy() for frame in frames), full=True, **SCIKIT)[1]
        for frames in zip(*pair)
    ]
    expected = np.mean([each[:, 20:40, 10:30] for each in maps])
    record_difference("SSIM of a region against scikit-image", abs(streamed(SSIM, *pair, mask) - expected), 1e-6)


def test_the_truth_has_infinite_psnr_and_ssim_one(pair):
    assert streamed(PSNR, pair[1], pair[1]) == np.inf
    assert streamed(SSIM, pair[1], pair[1]) == pytest.approx(1, abs=1e-7)
