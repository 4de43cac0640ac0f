import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Conditioning, ConditioningConfig
from difftalk_pl.training.published import below, convert_conditioning


@pytest.fixture
def published(golden):
    expected = golden("condition_nets")
    weights = below(convert_conditioning(expected.state_dict()), "conditioning.")

    def build(**options):
        module = Conditioning(ConditioningConfig(**options)).eval()
        module.load_state_dict(weights, strict=True)
        return module

    return expected, build


@pytest.mark.oracle
@torch.no_grad()
def test_equals_the_published_encoders(published, record_difference):
    expected, build = published
    module = build(landmark_scale=1.0)
    per_frame = module.audio(expected["audio"].flatten(0, 1)).unflatten(0, (2, 8))
    found = {
        "audio_per_frame": per_frame,
        "audio_smoothed": module.encode_audio(expected["audio"]),
        "landmark_code": module.encode_landmarks(expected["landmarks"]),
    }
    for key, value in found.items():
        record_difference(f"encoders, {key}", (value - expected[key]).abs().max(), 5e-5)


@pytest.mark.oracle
@torch.no_grad()
def test_fractions_of_the_side_become_pixels_of_the_released_frame(published):
    expected, build = published
    fractions = expected["landmarks"] / 256
    torch.testing.assert_close(build().encode_landmarks(fractions), expected["landmark_code"], atol=1e-3, rtol=1e-5)
    centred = build(landmark_centre=0.5).encode_landmarks(fractions + 0.5)
    torch.testing.assert_close(centred, expected["landmark_code"], atol=1e-2, rtol=1e-4)


@torch.no_grad()
def test_condition_holds_audio_and_landmarks_and_both_latents(published):
    expected, build = published
    module = build(landmark_scale=1.0)
    z_masked, z_reference = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    condition = module(expected["audio"], expected["landmarks"], z_masked, z_reference)
    assert condition.context.shape == (2, 1, 128)
    torch.testing.assert_close(condition.context[:, 0, :64], expected["audio_smoothed"], atol=5e-5, rtol=0)
    torch.testing.assert_close(condition.context[:, 0, 64:], expected["landmark_code"], atol=5e-5, rtol=0)
    assert torch.equal(condition.concat[:, :3], z_masked)
    assert torch.equal(condition.concat[:, 3:], z_reference)


@torch.no_grad()
def test_a_batch_of_one_is_the_first_of_two(published):
    expected, build = published
    module = build()
    z = torch.zeros(2, 3, 4, 4)
    both = module(expected["audio"], expected["landmarks"], z, z)
    alone = module(expected["audio"][:1], expected["landmarks"][:1], z[:1], z[:1])
    torch.testing.assert_close(alone.context, both.context[:1], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("channels", [13, 26])
def test_other_audio_features_fit(channels):
    module = Conditioning(ConditioningConfig(audio_channels=channels))
    z = torch.zeros(3, 3, 4, 4)
    condition = module(torch.randn(3, 8, 16, channels), torch.rand(3, 39, 2), z, z)
    condition.context.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_papers_smoothing_sees_17_frames():
    module = Conditioning(ConditioningConfig(audio_channels=5, smoothing=(8, 8)))
    audio, z = torch.randn(2, 17, 16, 5), torch.zeros(2, 3, 4, 4)
    base = module(audio, torch.rand(2, 39, 2), z, z).context
    assert base.shape == (2, 1, 128)
    for frame in (0, 16):
        moved = audio.clone()
        moved[:, frame] += 1
        assert (module.encode_audio(moved) - module.encode_audio(audio)).abs().max() > 1e-6


def test_frames_cannot_be_fewer_than_the_target():
    with pytest.raises(UserError, match=r"smoothing \[-1, 3\]: frames before and after, 0 or more"):
        ConditioningConfig(smoothing=(-1, 3))
