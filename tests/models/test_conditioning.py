"""The encoders against published numbers, and the tokens that go beyond them."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.dataset import LANDMARKS_WITHOUT_MOUTH
from difftalk_pl.models.conditioning import Conditioning, ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig, DiffTalk, DiffTalkConfig
from difftalk_pl.models.tokens import GROUPS, FrameTokens, LandmarkTokens, StepTokens, distinct_steps
from difftalk_pl.training.published import below, convert_conditioning

PARTS_OF_THE_FACE = {  # iBUG's numbering of the 68 points
    "right jaw": range(0, 4),
    "left jaw": range(13, 17),
    "right brow": range(17, 22),
    "left brow": range(22, 27),
    "nose": range(27, 36),
    "right eye": range(36, 42),
    "left eye": range(42, 48),
}


@pytest.mark.oracle
@torch.no_grad()
def test_equals_the_published_encoders(golden, record_difference):
    expected = golden("condition_nets")

    def build(**options):
        module = Conditioning(ConditioningConfig(**options)).eval()
        module.load_state_dict(below(convert_conditioning(expected.state_dict()), "conditioning."), strict=True)
        return module

    module = build(landmark_scale=1.0)
    per_frame = module.audio(expected["audio"].flatten(0, 1)).unflatten(0, (2, 8))
    found = {
        "audio_per_frame": per_frame,
        "audio_smoothed": module.encode_audio(expected["audio"]),
        "landmark_code": module.encode_landmarks(expected["landmarks"]),
    }
    for key, value in found.items():
        tolerance = max(5e-5, 1e-5 * float(expected[key].abs().max()))
        record_difference(f"encoders, {key}", (value - expected[key]).abs().max(), tolerance)
    fractions = expected["landmarks"] / 256
    scale = expected["landmark_code"].abs().max()
    for options, given in (({}, fractions), ({"landmark_centre": 0.5}, fractions + 0.5)):
        code = build(**options).encode_landmarks(given)
        assert (code - expected["landmark_code"]).abs().max() < 1e-3 * scale
    z_masked, z_reference = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    condition = module(expected["audio"], expected["landmarks"], z_masked, z_reference)
    assert condition.context.shape == (2, 1, 128)
    codes = torch.cat([expected["audio_smoothed"], expected["landmark_code"]], dim=1)
    assert (condition.context[:, 0] - codes).abs().max() < 1e-5 * scale
    assert torch.equal(condition.concat, torch.cat([z_masked, z_reference], dim=1))


def test_every_step_appears_once_and_in_order():
    """Frame 20 with smoothing (4, 3) has steps 24 to 53, frame k of the windows beginning at 2k - 8."""
    windows = np.stack([np.arange(2 * frame - 8, 2 * frame + 8) for frame in range(16, 24)])
    audio = torch.from_numpy(windows.astype(np.float32))[None, ..., None]
    assert distinct_steps(audio, own=4)[0, :, 0].tolist() == list(range(24, 54))


def test_groups_are_the_parts_of_the_face():
    assert [LANDMARKS_WITHOUT_MOUTH[place] for group in GROUPS.values() for place in group] == [
        point for part in PARTS_OF_THE_FACE.values() for point in part
    ]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "count", "reach"), [(StepTokens, 30, [27, 28, 29]), (FrameTokens, 8, [7])])
def test_a_token_sees_its_own_part_alone(kind, count, reach):
    """Two convolutions of 3 reach two steps further."""
    module, audio = kind(ConditioningConfig(audio_channels=5)), torch.randn(2, 8, 16, 5)
    base = module(audio)
    assert base.shape == (2, count, 128)
    audio[:, 7, 15] += 1  # the last step, which only the last frame's window has
    assert (module(audio) - base).abs().amax((0, 2)).gt(1e-6).nonzero().flatten().tolist() == reach
    module, landmarks = LandmarkTokens(), torch.rand(2, 39, 2)
    base = module(landmarks)
    landmarks[:, 20] += 1  # a point of the nose, group 4
    assert (module(landmarks) - base).abs().amax((0, 2)).gt(1e-6).nonzero().flatten().tolist() == [4]


def small(**conditioning):
    torch.manual_seed(0)
    return DiffTalk(
        DiffTalkConfig(
            DenoiserConfig((16, 32), 1, attention_levels=(False, True), heads=(1, 2), norm_num_groups=8),
            ConditioningConfig(audio_channels=5, landmark_scale=1.0, **conditioning),
        )
    )


def predict(model):
    torch.manual_seed(1)
    condition = model.condition(torch.randn(2, 8, 16, 5), torch.rand(2, 39, 2), *(torch.randn(2, 3, 8, 8),) * 2)
    return model(torch.randn(2, 3, 8, 8), torch.tensor([10, 900]), condition)


@torch.no_grad()
@pytest.mark.parametrize("audio_tokens", ["steps", "frames"])
def test_joint_tokens_start_as_the_single_token(audio_tokens):
    single, model = small(), small(context="tokens", audio_tokens=audio_tokens)
    model.conditioning.single.load_state_dict(single.conditioning.state_dict())
    model.denoiser.load_state_dict(single.denoiser.state_dict())
    torch.testing.assert_close(predict(model), predict(single), atol=1e-4, rtol=1e-4)
    model.conditioning.own.weight.normal_()
    assert (predict(model) - predict(single)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "matters"),
    [({"context": "single"}, False), ({"context": "tokens"}, True)],
)
def test_queries_learn_with_several_tokens_alone(options, matters):
    model = small(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):  # what starts at zero learns first, and then what is behind it
        optimizer.zero_grad()
        (predict(model) - 1).square().mean().backward()
        optimizer.step()
    queries = [p.grad.abs().max() for name, p in model.denoiser.named_parameters() if "attn2.to_q" in name]
    assert queries and all(bool(gradient > 1e-9) == matters for gradient in queries)
    assert all(p.grad.abs().max() > 0 for p in model.conditioning.parameters())
