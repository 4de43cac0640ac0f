"""SyncNet against numbers of the published network, and long clips against single windows."""

import copy

import numpy as np
import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.syncnet import LIP_FRAMES, SMALLEST_SIDE, SyncNet, SyncNetConfig, audio_stream


@pytest.fixture(scope="module")
def expected(golden):
    return golden("syncnet")


@pytest.fixture(scope="module")
def net(expected):
    module = SyncNet()
    module.load_state_dict(expected.state_dict(), strict=True)
    return module.eval().requires_grad_(False)


@pytest.mark.oracle
@torch.no_grad()
def test_equals_the_published_network(net, expected, record_difference, count_parameters):
    assert count_parameters(net) == 13_631_616
    video = torch.from_numpy((np.random.RandomState(1).rand(2, 3, 5, 224, 224) * 255).astype(np.float32))
    for name, ours in (
        ("lip", net.embed_stretches(video.transpose(1, 2))[:, 0]),
        ("audio", net.embed_audio(expected["mfcc"])),
    ):
        published = expected[f"{name}_embedding"]
        assert ours.shape == published.shape == (2, 1024)
        # Embeddings reach 68, so that kinds of processors differ by 2e-4; in 64 bits it is 8e-5.
        difference = (ours - published).abs().max() / published.abs().max()
        record_difference(f"SyncNet, {name} embedding, of the largest", difference, 5e-5)


@torch.no_grad()
def test_consecutive_frames_give_what_every_window_gives():
    torch.manual_seed(0)
    net = SyncNet(SyncNetConfig(side=64, width=0.2, embedding=16)).eval().double()
    frames = torch.rand(2, 8, 3, 64, 64, dtype=torch.float64) * 255
    one_by_one = torch.cat([net.embed_frames(frames[0, v : v + LIP_FRAMES]) for v in range(4)])
    torch.testing.assert_close(net.embed_frames(frames[0]), one_by_one)
    torch.testing.assert_close(net.embed_stretches(frames)[0], one_by_one)
    unit = copy.deepcopy(net)
    unit.config = SyncNetConfig(side=64, width=0.2, embedding=16, normalise=True)
    torch.testing.assert_close(unit.embed_frames(frames[0]), one_by_one / one_by_one.norm(dim=-1, keepdim=True))


@torch.no_grad()
def test_speech_in_batches_is_speech_at_once(net):
    mfcc = torch.randn(9, 13, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(audio_stream(net, mfcc, batch=4), net.embed_audio(mfcc[:, None]), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("side", [SMALLEST_SIDE, 96, 223, 256])
@torch.no_grad()
def test_any_side_leaves_one_cell(side):
    net = SyncNet(SyncNetConfig(side=side, width=0.05, embedding=8)).eval()
    assert net.embed_frames(torch.zeros(7, 3, side, side)).shape == (3, 8)
    with pytest.raises(UserError, match=f"expected {SMALLEST_SIDE} or more"):
        SyncNetConfig(side=SMALLEST_SIDE - 1)
