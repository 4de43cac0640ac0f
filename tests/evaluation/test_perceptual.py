"""Means of LPIPS's maps, on maps whose means are known and against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.evaluation.perceptual import LPIPS, lpips, masked_lpips
from difftalk_pl.models import perceptual as networks
from difftalk_pl.models.pretrained import read_lpips_heads


def quadrants(*values: float) -> torch.Tensor:
    """(1, 1, 2, 2)"""
    return torch.tensor(values).view(1, 1, 2, 2)


def test_layers_count_alike_whatever_their_size():
    layers = [torch.full((2, 1, 8, 8), 0.25), torch.stack([torch.full((1, 1, 1), value) for value in (0.5, 1.0)])]
    assert lpips(layers).tolist() == [0.75, 1.25]


def test_under_a_mask_the_enlarged_map_counts():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1  # in a corner the enlarged map is the corner's value
    assert masked_lpips([quadrants(0.1, 0.2, 0.3, 0.4), quadrants(1, 0, 0, 0)], mask).item() == torch.tensor(0.1) + 1
    mask[..., :2] = 1  # columns 0 and 1 of 0, 0.25, 0.75, 1
    ramp = quadrants(0, 1, 0, 1)
    assert masked_lpips([ramp], mask).item() == 0.125
    assert masked_lpips([ramp], torch.ones_like(mask)) == lpips([ramp])
    assert masked_lpips([ramp], torch.zeros_like(mask)).isnan()


@pytest.fixture
def network():
    """SqueezeNet with drawn weights, and the published heads."""
    torch.manual_seed(0)
    module = networks.LPIPS("squeeze")
    module.load_state_dict({**module.state_dict(), **networks.published_state({}, read_lpips_heads("squeeze"))})
    return module.requires_grad_(False)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    true, noise = (torch.rand(7, 3, 64, 64, generator=generator) * 2 - 1 for _ in range(2))
    return (true + torch.linspace(0.1, 0.6, 7)[:, None, None, None] * noise).clamp(-1, 1), true


def test_over_a_stream_it_is_that_of_torchmetrics(network, pair, monkeypatch, record_difference):
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: network.features)
    expected = float(theirs._LPIPS(pnet_rand=True, net="squeeze")(*pair).double().mean())
    ours = LPIPS()
    for chunk in zip(*(frames.split(3) for frames in pair)):
        ours.update(network.layers(*chunk))
    assert expected > 1e-3
    record_difference("LPIPS against torchmetrics, relative", abs(float(ours.compute()) / expected - 1), 1e-5)


def test_the_truth_is_at_no_distance(network, pair):
    metric = LPIPS()
    metric.update(network.layers(pair[1], pair[1]))
    assert metric.compute() == 0


def test_over_a_stream_a_mask_counts_frame_by_frame(network, pair):
    mask = torch.zeros(7, 1, 64, 64)
    for frame in range(7):
        mask[frame, :, : 8 * frame + 8] = 1
    metric = LPIPS()
    for *frames, part in zip(*(stream.split(3) for stream in (*pair, mask))):
        metric.update(network.layers(*frames), part)
    expected = torch.stack(
        [masked_lpips(network.layers(*(x[k : k + 1] for x in pair)), mask[k : k + 1])[0] for k in range(7)]
    )
    assert float(metric.compute()) == pytest.approx(float(expected.mean()), rel=1e-5)
