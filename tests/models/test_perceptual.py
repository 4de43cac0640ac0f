"""LPIPS against numbers of the published networks and against torchmetrics' own, which needs only our layers for it."""

import copy

import pytest
import torch
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.models.perceptual import BACKBONES, LPIPS, published_state
from difftalk_pl.models.pretrained import read_lpips_heads

NETWORKS = sorted(BACKBONES)


def backbone(oracle, network):
    return {
        name.removeprefix(f"{network}."): value
        for name, value in oracle.state_dict().items()
        if name.startswith(f"{network}.")
    }


def load(state, network):
    module = LPIPS(network)
    module.load_state_dict(published_state(state, read_lpips_heads(network)), strict=True)
    return module


@pytest.fixture(scope="module")
def small():
    """SqueezeNet with drawn weights, and the published heads."""
    torch.manual_seed(0)
    module = LPIPS("squeeze")
    state = {f"features.{name}": value for name, value in module.features.state_dict().items()}
    return load(state, "squeeze")


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    x, noise = (torch.rand(3, 3, 64, 64, generator=generator) * 2 - 1 for _ in range(2))
    return x, (x + 0.3 * noise).clamp(-1, 1)


@pytest.mark.oracle
@pytest.mark.parametrize("network", NETWORKS)
def test_distances_are_those_of_the_published_networks(golden, record_difference, network):
    expected = golden("lpips")
    module = load(backbone(expected, network), network)
    distance = module(expected["x"], expected["y"])
    assert distance.shape == expected[network].shape
    record_difference(f"LPIPS, {network}", (distance - expected[network]).abs().max(), 5e-5)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_taps_scaling_and_heads_are_those_of_torchmetrics(monkeypatch, pictures, network, spatial):
    ours = LPIPS(network)
    ours.load_state_dict({**ours.state_dict(), **published_state({}, read_lpips_heads(network))})
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: ours.features)
    reference = theirs._LPIPS(pnet_rand=True, net=network, spatial=spatial)
    expected = reference(*pictures)
    if not spatial:
        torch.testing.assert_close(ours(*pictures), expected[:, 0, 0, 0])
        return
    assert expected.std() > 0
    enlarged = [torch.nn.functional.interpolate(layer, (64, 64), mode="bilinear") for layer in ours.layers(*pictures)]
    torch.testing.assert_close(torch.stack(enlarged).sum(0), expected)


class WholeWindows(torch.nn.Module):
    """SqueezeNet's pooling, written apart: a window that begins within the picture counts, wherever it ends."""

    def forward(self, x):
        return torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)


@pytest.mark.parametrize("side, sides", [(65, [32, 16, 8, 4, 4, 4, 4]), (71, [35, 17, 8, 4, 4, 4, 4])])
def test_squeezenet_pools_to_the_edge_of_any_picture(monkeypatch, small, side, sides):
    """Sides as torchvision's squeezenet1_1 has them; 64 pixels cannot tell this from pooling that stops before."""
    features = copy.deepcopy(small.features)
    for number in (2, 5, 8):
        assert isinstance(features[number], torch.nn.MaxPool2d)
        features[number] = WholeWindows()
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: features)
    reference = theirs._LPIPS(pnet_rand=True, net="squeeze")
    x, y = torch.rand(2, 2, 3, side, side, generator=torch.Generator().manual_seed(4)) * 2 - 1
    assert [layer.shape[2:] for layer in small.layers(x, y)] == [(side, side) for side in sides]
    torch.testing.assert_close(small(x, y), reference(x, y)[:, 0, 0, 0])


def test_equal_pictures_have_no_distance_and_more_noise_more_of_it(small, pictures):
    x, _ = pictures
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    near, far = (small(x, (x + scale * noise).clamp(-1, 1)) for scale in (0.05, 0.5))
    assert torch.equal(small(x, x), torch.zeros(3))
    assert (near > 0).all() and (near < far).all()


def test_the_distance_is_symmetric_and_of_every_picture_alone(small, pictures):
    x, y = pictures
    together = small(x, y)
    assert together.shape == (3,)
    torch.testing.assert_close(small(y, x), together)
    torch.testing.assert_close(torch.cat([small(x[i : i + 1], y[i : i + 1]) for i in range(3)]), together)


def test_the_layers_sum_up_to_the_distance(small, pictures):
    layers = small.layers(*pictures)
    assert [layer.shape[1] for layer in layers] == [1] * 7
    torch.testing.assert_close(sum(layer.mean((1, 2, 3)) for layer in layers), small(*pictures))


def test_the_gradient_is_that_of_finite_differences(small, pictures):
    double = LPIPS("squeeze").double()
    double.load_state_dict(small.state_dict())
    x, y = (picture[:1].double() for picture in pictures)
    x.requires_grad_()
    double(x, y).sum().backward()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        step = 1e-6
        slope = (double(x + step * direction, y) - double(x - step * direction, y)).item() / (2 * step)
    assert (x.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4)
    assert slope != 0


def test_where_no_feature_is_active_the_gradient_is_finite(small):
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    for parameter in (dead := LPIPS("squeeze")).features.parameters():
        parameter.zero_()
    dead(flat, torch.ones(1, 3, 64, 64)).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))


def test_it_is_frozen_whatever_is_around_it(small):
    around = torch.nn.ModuleList([small, torch.nn.Dropout()]).train()
    assert around[1].training and not any(module.training for module in small.modules())
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_only_convolutions_are_kept(count_parameters):
    """Published sizes of the networks' feature parts, and the heads' channels."""
    published = {"alex": 2_469_696, "vgg": 14_714_688, "squeeze": 722_496}
    for network, backbone in BACKBONES.items():
        assert count_parameters(LPIPS(network)) == published[network] + sum(backbone.channels)


def test_half_precision_rounds_and_does_not_break(small, pictures):
    with torch.autocast("cpu", torch.bfloat16):
        rounded = small(*pictures)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, small(*pictures), rtol=0.02, atol=0)
