"""LPIPS against numbers of the published networks and against torchmetrics' own."""

import copy

import pytest
import torch
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.models.perceptual import BACKBONES, LPIPS
from difftalk_pl.training.pretrained import lpips_state

NETWORKS = sorted(BACKBONES)


def load(state, network):
    module = LPIPS(network)
    module.load_state_dict(lpips_state(network, state), strict=True)
    return module


@pytest.fixture(scope="module")
def small():
    """SqueezeNet with drawn weights, and the published heads."""
    torch.manual_seed(0)
    return load(
        {f"features.{name}": value for name, value in LPIPS("squeeze").features.state_dict().items()}, "squeeze"
    )


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    x, noise = (torch.rand(3, 3, 65, 65, generator=generator) * 2 - 1 for _ in range(2))
    return x, (x + 0.3 * noise).clamp(-1, 1)


@pytest.mark.oracle
@pytest.mark.parametrize("network", NETWORKS)
def test_distances_are_those_of_the_published_networks(golden, record_difference, network):
    expected = golden("lpips")
    state = expected.state_dict()
    own = {name.removeprefix(f"{network}."): value for name, value in state.items() if name.startswith(f"{network}.")}
    distance = load(own, network)(expected["x"], expected["y"])
    record_difference(f"LPIPS, {network}", (distance - expected[network]).abs().max(), 5e-5)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_taps_scaling_and_heads_are_those_of_torchmetrics(monkeypatch, pictures, network, spatial):
    ours = LPIPS(network)
    ours.load_state_dict({**ours.state_dict(), **lpips_state(network, {})})
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: ours.features)
    expected = theirs._LPIPS(pnet_rand=True, net=network, spatial=spatial)(*pictures)
    if not spatial:
        torch.testing.assert_close(ours(*pictures), expected[:, 0, 0, 0], rtol=1e-4, atol=1e-6)
        return
    size = pictures[0].shape[2:]
    enlarged = [torch.nn.functional.interpolate(layer, size, mode="bilinear") for layer in ours.layers(*pictures)]
    torch.testing.assert_close(torch.stack(enlarged).sum(0), expected, rtol=1e-4, atol=1e-5)


class WholeWindows(torch.nn.Module):
    """SqueezeNet's pooling in other words: a window that begins within the picture counts, wherever it ends."""

    def forward(self, x):
        return torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)


def test_squeezenet_pools_to_the_edge(monkeypatch, small, pictures):
    features = copy.deepcopy(small.features)
    for number in (2, 5, 8):
        features[number] = WholeWindows()
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: features)
    assert [layer.shape[2] for layer in small.layers(*pictures)] == [32, 16, 8, 4, 4, 4, 4]
    expected = theirs._LPIPS(pnet_rand=True, net="squeeze")(*pictures)[:, 0, 0, 0]
    torch.testing.assert_close(small(*pictures), expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_and_go_to_the_pictures_alone(small, pictures):
    x = pictures[0].clone().requires_grad_()
    small(x, pictures[1]).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    dead = LPIPS("squeeze")
    for parameter in dead.features.parameters():
        parameter.zero_()
    dead(flat, torch.ones(1, 3, 64, 64)).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat)), "where no feature is active"


def test_it_stays_frozen_and_holds_only_convolutions(small, count_parameters):
    around = torch.nn.ModuleList([small, torch.nn.Dropout()]).train()
    assert around[1].training and not any(module.training for module in small.modules())
    assert not any(parameter.requires_grad for parameter in small.parameters())
    published = {"alex": 2_469_696, "vgg": 14_714_688, "squeeze": 722_496}
    for network, backbone in BACKBONES.items():
        assert count_parameters(LPIPS(network)) == published[network] + sum(backbone.channels)
