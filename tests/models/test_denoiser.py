"""The denoiser against published numbers, and the whole of stage 2's network."""

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition, ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig, DiffTalk, DiffTalkConfig, build_denoiser
from difftalk_pl.training import published
from difftalk_pl.training.published import DENOISER, below, convert_denoiser, denoiser_config
from difftalk_pl.training.weights import from_dict, plain

SMALL = DiffTalkConfig(
    DenoiserConfig((16, 32), 1, attention_levels=(False, True), heads=(1, 2), norm_num_groups=8),
    ConditioningConfig(audio_channels=13, landmark_scale=1.0),
)


def test_default_is_the_published_size(count_parameters):
    with torch.device("meta"):
        unet = build_denoiser(DenoiserConfig())
    assert len(unet.state_dict()) == 688 and count_parameters(unet) == 530_152_963
    assert unet.down_blocks[3].attentions[0].transformer_blocks[0].attn2.heads == 32


@torch.no_grad()
def error_against_published(expected):
    state = below(expected.state_dict(), DENOISER)
    config = denoiser_config(state)
    model = DiffTalk(DiffTalkConfig(config, ConditioningConfig())).eval()
    converted = below(convert_denoiser(state, config.layers_per_block), "denoiser.")
    model.denoiser.load_state_dict(converted, strict=True)
    condition = Condition(expected["context"], expected["z"][:, 3:])
    return (model(expected["z"][:, :3], expected["t"], condition) - expected["out"]).abs().max().item()


@pytest.mark.oracle
def test_equals_the_published_denoiser(golden, record_difference, monkeypatch):
    assert error_against_published(golden("unet_width32")) > 1e-3, "any number of heads loads"
    monkeypatch.setattr(published, "HEAD_WIDTH", 16)  # of the oracle's network
    record_difference("denoiser", error_against_published(golden("unet_width32")), 5e-5)


def test_configuration_survives_json_and_impossible_ones_are_refused():
    assert from_dict(DiffTalkConfig, plain(SMALL)) == SMALL
    with pytest.raises(TypeError, match="'head'"):
        from_dict(DiffTalkConfig, {"denoiser": {"head": (1,)}})
    with pytest.raises(UserError, match="heads need 4 entries"):
        DenoiserConfig(heads=(8, 16, 24))
    with pytest.raises(UserError, match=r"48 channels .* 5 heads"):
        DenoiserConfig(block_out_channels=(48, 96, 96, 96), heads=(5, 4, 4, 4))


def test_every_input_matters_and_it_learns():
    torch.manual_seed(0)
    model = DiffTalk(SMALL)
    shapes = {"audio": (8, 16, 13), "landmarks": (39, 2), "z_masked": (3, 8, 8), "z_reference": (3, 8, 8)}
    given = {name: torch.randn(4, *shape) for name, shape in shapes.items()}
    z_t, noise, t = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([50, 300, 600, 900])
    with torch.no_grad():
        base = model(z_t, t, model.condition(**given))
        for name, value in given.items():
            other = model(z_t, t, model.condition(**{**given, name: value + 1}))
            assert (other - base).abs().max() > 1e-4, name
        assert (model(z_t, t + 50, model.condition(**given)) - base).abs().max() > 1e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (model(z_t, t, model.condition(**given)) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
