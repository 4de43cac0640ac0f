"""SyncNet against numbers of the published network, and long clips against their windows one by one."""

import copy
import io

import numpy as np
import pytest
import torch
from einops import rearrange

from difftalk_pl.models.syncnet import LIP_FRAMES, SMALLEST_SIDE, SyncNet, SyncNetConfig, audio_stream


@pytest.fixture(scope="module")
def expected(golden):
    return golden("syncnet")


@pytest.fixture(scope="module")
def net(expected):
    module = SyncNet()
    module.load_state_dict(expected.state_dict(), strict=True)
    return module.freeze()


@pytest.fixture(scope="module")
def frames():
    """Eleven frames, no two alike: (11, 3, 224, 224), 0 to 255."""
    return torch.from_numpy(np.random.RandomState(5).randint(0, 256, (11, 3, 224, 224)).astype(np.uint8))


@pytest.mark.oracle
@torch.no_grad()
def test_equals_the_published_network(net, expected, record_difference):
    video = torch.from_numpy((np.random.RandomState(1).rand(2, 3, 5, 224, 224) * 255).astype(np.float32))
    for name, ours in (("lip", net.embed_lips(video)), ("audio", net.embed_audio(expected["mfcc"]))):
        published = expected[f"{name}_embedding"]
        assert ours.shape == published.shape == (2, 1024)
        # Embeddings reach 68, so that kinds of processors differ by 2e-4; in 64 bits it is 8e-5.
        difference = (ours - published).abs().max() / published.abs().max()
        record_difference(f"SyncNet, {name} embedding, of the largest", difference, 5e-5)


def test_has_the_published_size(net, count_parameters):
    assert count_parameters(net) == 13_631_616


def test_a_file_of_the_published_names_loads_strictly_and_no_other(expected):
    weights = expected.state_dict()  # published without the counters of batches
    file = io.BytesIO()
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    module = SyncNet()
    module.load_state_dict(read, strict=True)
    module.load_state_dict(module.state_dict(), strict=True)  # with the counters
    assert torch.equal(module.netcnnlip[18].weight, weights["netcnnlip.18.weight"])
    with pytest.raises(RuntimeError, match=r"netfclip\.3\.bias"):
        module.load_state_dict({key: value for key, value in read.items() if key != "netfclip.3.bias"}, strict=True)


@torch.no_grad()
def test_a_frozen_one_judges_and_never_learns(net, expected):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    embedding = net.embed_audio(expected["mfcc"])
    torch.testing.assert_close(net.embed_audio(expected["mfcc"][:1]), embedding[:1], atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_one_that_is_not_frozen_trains(expected):
    net = SyncNet(SyncNetConfig(side=64, width=0.05, embedding=8)).train()
    net.embed_audio(expected["mfcc"]).square().sum().backward()
    assert net.netcnnaud[0].weight.grad.abs().sum() > 0 and net.netcnnaud[1].num_batches_tracked == 1


def test_gradients_reach_the_inputs(net, expected):
    mfcc = expected["mfcc"].clone().requires_grad_()
    net.embed_audio(mfcc).square().sum().backward()
    assert mfcc.grad.abs().amin(dim=(1, 2, 3)).shape == (2,)
    assert (mfcc.grad != 0).float().mean() > 0.9


@torch.no_grad()
def test_frames_as_they_come_give_what_every_window_gives(net, frames):
    precise = copy.deepcopy(net).double()
    windows = [rearrange(frames[v : v + LIP_FRAMES], "t c h w -> 1 c t h w").double() for v in range(7)]
    one_by_one = torch.cat([precise.embed_lips(window) for window in windows])
    torch.testing.assert_close(precise.embed_frames(frames.double()), one_by_one, atol=1e-10, rtol=0)
    torch.testing.assert_close(net.embed_frames(frames.float()), one_by_one.float(), atol=5e-4, rtol=0)


@torch.no_grad()
def test_speech_in_batches_is_speech_at_once(net):
    mfcc = torch.randn(9, 13, 20, generator=torch.Generator().manual_seed(0))
    stream = audio_stream(net, mfcc, batch=4)
    torch.testing.assert_close(stream, net.embed_audio(mfcc[:, None]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("method", "shape", "complaint"),
    [
        ("embed_lips", (1, 3, 5, 256, 256), r"lips are \(1, 3, 5, 256, 256\): expected \(B, 3, 5, 224, 224\)"),
        ("embed_lips", (1, 5, 3, 224, 224), r"lips are"),
        ("embed_frames", (4, 3, 224, 224), r"frames are .* T >= 5"),
        ("embed_audio", (1, 1, 20, 13), r"mfcc is \(1, 1, 20, 13\): expected \(B, 1, 13, 20\)"),
    ],
)
def test_other_shapes_are_refused(net, method, shape, complaint):
    with pytest.raises(ValueError, match=complaint):
        getattr(net, method)(torch.zeros(shape))


@pytest.mark.parametrize("side", [SMALLEST_SIDE, 64, 96, 112, 128, 160, 223, 224, 256])
@torch.no_grad()
def test_any_side_leaves_one_cell(side):
    net = SyncNet(SyncNetConfig(side=side, width=0.05, embedding=8)).freeze()
    assert net.embed_lips(torch.zeros(2, 3, 5, side, side)).shape == (2, 8)
    assert net.embed_frames(torch.zeros(7, 3, side, side)).shape == (3, 8)
    with pytest.raises(ValueError, match=rf"lips are .*: expected \(B, 3, 5, {side}, {side}\)"):
        net.embed_lips(torch.zeros(2, 3, 5, side + 1, side + 1))


def test_a_side_below_the_smallest_leaves_nothing_and_says_so(monkeypatch):
    with pytest.raises(ValueError, match=f"syncnet.side {SMALLEST_SIDE - 1}: expected {SMALLEST_SIDE} or more"):
        SyncNetConfig(side=SMALLEST_SIDE - 1)
    monkeypatch.setattr("difftalk_pl.models.syncnet.SMALLEST_SIDE", 0)
    assert SyncNetConfig(side=SMALLEST_SIDE - 1).last_kernel == 0, "the limit is where the layers put it"
    with pytest.raises(ValueError, match=r"syncnet.width 0.001, embedding 8"):
        SyncNetConfig(width=0.001, embedding=8)


def test_the_width_scales_all_layers(count_parameters):
    """By hand: weights and biases of convolutions and of the heads, two numbers a channel of batch normalisation."""
    lips, speech, code = (24, 64, 64, 64, 64, 128), (16, 48, 96, 64, 64, 128), 128
    kernels = (5 * 7 * 7, 5 * 5, 9, 9, 9, 2 * 2), (9, 9, 9, 9, 9, 5 * 4)
    expected = 2 * (code * code + code + 2 * code + code * 256 + 256)
    for first, widths, sizes in ((3, lips, kernels[0]), (1, speech, kernels[1])):
        for narrow, wide, size in zip((first, *widths), widths, sizes):
            expected += narrow * wide * size + 3 * wide
    assert count_parameters(SyncNet(SyncNetConfig(side=96, width=0.25, embedding=256))) == expected


@torch.no_grad()
def test_unit_length_where_asked_for():
    torch.manual_seed(0)
    plain, unit = (SyncNet(SyncNetConfig(64, 0.05, 8, normalise)).freeze() for normalise in (False, True))
    unit.load_state_dict(plain.state_dict())
    stretches = torch.rand(2, 6, 3, 64, 64) * 255
    for method, given in (("embed_audio", torch.randn(3, 1, 13, 20)), ("embed_stretches", stretches)):
        one, other = getattr(plain, method)(given), getattr(unit, method)(given)
        torch.testing.assert_close(other, one / one.norm(dim=-1, keepdim=True))


@torch.no_grad()
def test_stretches_together_are_stretches_alone():
    torch.manual_seed(0)
    net = SyncNet(SyncNetConfig(64, 0.05, 8)).freeze().double()
    stretches = torch.rand(3, 7, 3, 64, 64, dtype=torch.float64) * 255
    alone = torch.stack([net.embed_frames(stretch) for stretch in stretches])
    torch.testing.assert_close(net.embed_stretches(stretches), alone, atol=1e-12, rtol=0)
