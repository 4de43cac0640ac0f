"""Tokens: what each is made of, and that the denoiser's attention comes to matter."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.dataset import LANDMARKS_WITHOUT_MOUTH
from difftalk_pl.data.features.windows import smoothing_windows
from difftalk_pl.models.conditioning import ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.difftalk import DiffTalk, DiffTalkConfig
from difftalk_pl.models.tokens import GROUPS, build_conditioning, distinct_steps

PARTS_OF_THE_FACE = {  # iBUG's numbering of the 68 points
    "right jaw": range(0, 4),
    "left jaw": range(13, 17),
    "right brow": range(17, 22),
    "left brow": range(22, 27),
    "nose": range(27, 36),
    "right eye": range(36, 42),
    "left eye": range(42, 48),
}


def tokens(**options):
    torch.manual_seed(0)
    return build_conditioning(ConditioningConfig(audio_channels=5, context="tokens", landmark_scale=1.0, **options))


def latents(batch):
    return torch.zeros(batch, 3, 4, 4), torch.ones(batch, 3, 4, 4)


@pytest.mark.parametrize("frame", [20, 4, 35])
def test_every_step_appears_once_and_in_order(frame):
    """A clip whose features are the numbers of its steps: frame k looks at steps 2k - 16 to 2k + 13."""
    steps = np.arange(1, 81, dtype=np.float32)[:, None]
    audio = torch.from_numpy(smoothing_windows(steps, np.array(frame)))[None]
    inside = [s + 1 if 0 <= s < 79 else 0 for s in range(2 * frame - 16, 2 * frame + 14)]
    assert distinct_steps(audio, own=4)[0, :, 0].tolist() == inside


def test_a_wider_smoothing_makes_more_tokens():
    """Frames i-8 … i+8, as the paper has it: 48 steps, 2k - 24 to 2k + 23."""
    steps = np.arange(1, 121, dtype=np.float32)[:, None]
    audio = torch.from_numpy(smoothing_windows(steps, np.array(30), (8, 8)))[None]
    assert audio.shape == (1, 17, 16, 1)
    assert distinct_steps(audio, own=8)[0, :, 0].tolist() == list(range(2 * 30 - 24 + 1, 2 * 30 + 24 + 1))
    for audio_tokens, count in (("steps", 48), ("frames", 17)):
        module = tokens(audio_tokens=audio_tokens, smoothing=(8, 8))
        context = module(audio.expand(-1, -1, -1, 5), torch.rand(1, 39, 2), *latents(1)).context
        assert context.shape == (1, count + 7, 128)


def test_groups_are_the_parts_of_the_face():
    assert [LANDMARKS_WITHOUT_MOUTH[place] for group in GROUPS.values() for place in group] == [
        point for part in PARTS_OF_THE_FACE.values() for point in part
    ]


@torch.no_grad()
@pytest.mark.parametrize(("audio_tokens", "count"), [("steps", 30), ("frames", 8)])
def test_a_token_sees_its_own_part_alone(audio_tokens, count):
    module = tokens(audio_tokens=audio_tokens, joint=False).eval()
    audio, landmarks = torch.randn(2, 8, 16, 5), torch.rand(2, 39, 2)
    base = module(audio, landmarks, *latents(2)).context
    assert base.shape == (2, count + 7, 128)
    moved = landmarks.clone()
    moved[:, 20] += 1  # a point of the nose, group 4
    changed = (module(audio, moved, *latents(2)).context - base).abs().amax((0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [count + 4]
    later = audio.clone()
    later[:, 7, 15] += 1  # the last step, which only the last frame's window holds
    changed = (module(later, landmarks, *latents(2)).context - base).abs().amax((0, 2)) > 1e-6
    reach = {"steps": [27, 28, 29], "frames": [7]}[audio_tokens]  # two convolutions of 3 reach two steps further
    assert changed.nonzero().flatten().tolist() == reach


@torch.no_grad()
@pytest.mark.parametrize("audio_tokens", ["steps", "frames"])
def test_equal_speech_at_other_positions_gives_other_tokens(audio_tokens):
    module = tokens(audio_tokens=audio_tokens, joint=False)
    context = module(torch.ones(1, 8, 16, 5), torch.rand(1, 39, 2), *latents(1)).context[0, :8]
    assert torch.pdist(context).min() > 1e-3


def test_latents_go_beside_as_with_the_single_token():
    z_masked, z_reference = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    concat = tokens()(torch.randn(2, 8, 16, 5), torch.rand(2, 39, 2), z_masked, z_reference).concat
    assert torch.equal(concat, torch.cat([z_masked, z_reference], dim=1))


def small(**conditioning):
    torch.manual_seed(0)
    return DiffTalk(
        DiffTalkConfig(
            DenoiserConfig((16, 32), 1, attention_levels=(False, True), heads=(1, 2), norm_num_groups=8),
            ConditioningConfig(audio_channels=5, landmark_scale=1.0, **conditioning),
        )
    )


def predict(model, seed=1):
    torch.manual_seed(seed)
    condition = model.condition(torch.randn(2, 8, 16, 5), torch.rand(2, 39, 2), *(torch.randn(2, 3, 8, 8),) * 2)
    return model(torch.randn(2, 3, 8, 8), torch.tensor([10, 900]), condition)


@torch.no_grad()
@pytest.mark.parametrize("audio_tokens", ["steps", "frames"])
def test_joint_tokens_start_as_the_single_token(audio_tokens):
    single, model = small(), small(context="tokens", audio_tokens=audio_tokens)
    model.conditioning.single.load_state_dict(single.conditioning.state_dict())
    model.denoiser.load_state_dict(single.denoiser.state_dict())
    torch.testing.assert_close(predict(model), predict(single), atol=1e-5, rtol=0)
    model.conditioning.own.weight.normal_()
    assert (predict(model) - predict(single)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "matters"),
    [({"context": "single"}, False), ({"context": "tokens"}, True), ({"context": "tokens", "joint": False}, True)],
)
def test_queries_matter_with_tokens_alone(options, matters):
    """One key: the softmax is 1 and the queries get no gradient. Several that differ: they learn, and all else too."""
    model = small(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):  # what starts at zero learns first, and then what is behind it
        optimizer.zero_grad()
        (predict(model) - 1).square().mean().backward()
        optimizer.step()
    queries = [p.grad.abs().max() for name, p in model.denoiser.named_parameters() if "attn2.to_q" in name]
    assert queries
    assert all(bool(gradient > 1e-9) == matters for gradient in queries)
    assert all(p.grad.abs().max() > 0 for p in model.conditioning.parameters())


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="context is 'many': expected one of single, tokens"):
        build_conditioning(ConditioningConfig(context="many"))
    with pytest.raises(ValueError, match="audio_tokens is 'words': expected one of steps, frames"):
        tokens(audio_tokens="words")
