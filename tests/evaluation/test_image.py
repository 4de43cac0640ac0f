"""PSNR, SSIM and LPIPS against scikit-image and torchmetrics."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.evaluation.image import lpips, masked_mean, psnr, similarity_map
from difftalk_pl.models import perceptual as networks
from difftalk_pl.training.pretrained import lpips_state

BORDER = 5  # half of SSIM's window
SCIKIT = {
    "data_range": 2,
    "channel_axis": 0,
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
}
INSIDE = (..., slice(20, 40), slice(10, 30))


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    true = torch.nn.functional.interpolate(torch.rand(4, 3, 16, 16, generator=generator), 64, mode="bicubic") * 2 - 1
    noise = torch.randn(4, 3, 64, 64, generator=generator) * torch.linspace(0.02, 0.5, 4)[:, None, None, None]
    return (true + noise).clamp(-1, 1), true.clamp(-1, 1)


@pytest.fixture
def mask():
    mask = torch.zeros(4, 1, 64, 64)
    mask[INSIDE] = 1
    return mask


def test_psnr_is_that_of_scikit_image(pair, mask, record_difference):
    for name, part, where in (("frame", pair, None), ("region", [frames[INSIDE] for frames in pair], mask)):
        expected = [
            peak_signal_noise_ratio(t.double().numpy(), g.double().numpy(), data_range=2) for g, t in zip(*part)
        ]
        difference = np.abs(psnr(*pair, where).numpy() - expected).max()
        record_difference(f"PSNR of a {name} against scikit-image", difference, 1e-9)
    assert psnr(pair[1], pair[1]).isinf().all()


def test_ssim_is_that_of_scikit_image(pair, mask, record_difference):
    """scikit-image leaves the border out of its mean, so that the frame is mirrored beyond its edges first."""
    whole, region = [], []
    for frames in zip(*pair):
        wide = [np.pad(x.double().numpy(), ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), "reflect") for x in frames]
        whole.append(structural_similarity(*wide, **SCIKIT))
        region.append(
            structural_similarity(*(x.double().numpy() for x in frames), full=True, **SCIKIT)[1][INSIDE].mean()
        )
    similarity = similarity_map(*pair)
    record_difference("SSIM against scikit-image", np.abs(masked_mean(similarity).numpy() - whole).max(), 1e-6)
    record_difference(
        "SSIM of a region against scikit-image", np.abs(masked_mean(similarity, mask).numpy() - region).max(), 1e-6
    )


def test_lpips_is_that_of_torchmetrics(pair, mask, monkeypatch, record_difference):
    """SqueezeNet with drawn weights, and the published heads."""
    torch.manual_seed(0)
    network = networks.LPIPS("squeeze").requires_grad_(False)
    network.load_state_dict({**network.state_dict(), **lpips_state("squeeze", {})})
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: network.features)
    layers = network.layers(*pair)
    expected = theirs._LPIPS(pnet_rand=True, net="squeeze")(*pair).flatten().double()
    assert expected.min() > 1e-4
    record_difference("LPIPS against torchmetrics, relative", float((lpips(layers) / expected - 1).abs().max()), 1e-5)
    spatial = theirs._LPIPS(pnet_rand=True, net="squeeze", spatial=True)(*pair)[INSIDE].mean((1, 2, 3)).double()
    masked = lpips(layers, mask)
    record_difference(
        "LPIPS of a region against torchmetrics, relative", float((masked / spatial - 1).abs().max()), 1e-4
    )
    assert lpips(network.layers(pair[1], pair[1])).eq(0).all()
