import json
from dataclasses import asdict

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.difftalk import DiffTalk, DiffTalkConfig

SMALL = DiffTalkConfig(
    DenoiserConfig((16, 32), 1, attention_levels=(False, True), heads=(1, 2), norm_num_groups=8),
    ConditioningConfig(audio_channels=13, landmark_scale=1.0),
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DiffTalk(SMALL)


def inputs(batch=4):
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "audio": (batch, 8, 16, 13),
        "landmarks": (batch, 39, 2),
        "z_masked": (batch, 3, 8, 8),
        "z_reference": (batch, 3, 8, 8),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_config_survives_json():
    assert DiffTalkConfig.from_dict(json.loads(json.dumps(asdict(SMALL)))) == SMALL
    assert DiffTalkConfig.from_dict({}) == DiffTalkConfig()


@pytest.mark.parametrize("values", [{"denoisr": {}}, {"denoiser": {"head": (1,)}}, {"conditioning": {"contxt": "x"}}])
def test_unknown_keys_are_named(values):
    key = next(iter(values)) if "denoisr" in values else next(iter(next(iter(values.values()))))
    with pytest.raises(ValueError, match=f"'{key}'"):
        DiffTalkConfig.from_dict(values)


def test_every_input_matters(model):
    z_t, t = torch.randn(4, 3, 8, 8), torch.full((4,), 500)
    given = inputs()
    with torch.no_grad():
        base = model(z_t, t, model.condition(**given))
        for name, value in given.items():
            other = model(z_t, t, model.condition(**{**given, name: value + 1}))
            assert (other - base).abs().max() > 1e-4, name
        assert (model(z_t, t - 400, model.condition(**given)) - base).abs().max() > 1e-4


def test_context_width_has_to_fit():
    with pytest.raises(UserError, match=r"context_width is 64: .* 128"):
        DiffTalk(DiffTalkConfig(DenoiserConfig(context_width=64)))


def test_it_learns_and_its_weights_load_into_a_fresh_one(model):
    given, t = inputs(), torch.tensor([50, 300, 600, 900])
    z_t, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (model(z_t, t, model.condition(**given)) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    fresh = DiffTalk(DiffTalkConfig.from_dict(asdict(model.config)))
    fresh.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        expected, result = (net(z_t, t, net.condition(**given)) for net in (model, fresh))
    assert torch.equal(expected, result)
