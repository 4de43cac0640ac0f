"""Noise by frame number, previous frames, references; and guidance."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import GENERATION, WindowDataset
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.errors import UserError
from difftalk_pl.generation.consistency import GenerationState, Steadiness, frame_noise, sequential_groups
from difftalk_pl.generation.sampler import Generator, SamplerConfig
from difftalk_pl.models.configuration import from_dict
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule, sample
from difftalk_pl.training.codec import LatentCodec
from tests.runner import SMALL

SHAPE = (3, 64, 64)


@pytest.fixture(scope="module")
def windows(prepared):
    return WindowDataset(open_clips(prepared)[:2], GENERATION, fixed=True, reference=ReferenceRule(lenient=True))


@pytest.fixture(scope="module")
def difftalk():
    torch.manual_seed(0)
    return DiffTalk(from_dict(DiffTalkConfig, SMALL["diffusion"]["model"]["init_args"]["difftalk"])).eval()


def batch(windows, *places):
    return torch.utils.data.default_collate([windows[place] for place in places])


def generator(difftalk, codec, dropout=0.0, **sampler):
    settings = SamplerConfig(**{"name": "dpm++", "steps": 2} | sampler)
    return Generator(difftalk, LatentCodec.load(codec), NoiseSchedule(), settings, dropout)


def correlation(one, other):
    return float(np.corrcoef(one.flatten(), other.flatten())[0, 1])


def test_shared_noise_is_one_for_all_frames_and_independent_noise_none():
    shared = frame_noise(SHAPE, [0, 7, 900], 3, Steadiness())
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])
    independent = frame_noise(SHAPE, [0, 7, 900], 3, Steadiness(noise="independent"))
    assert abs(correlation(independent[0], independent[1])) < 0.03 and abs(independent.std().item() - 1) < 0.02


def test_correlated_noise_changes_as_slowly_as_it_is_told_and_keeps_its_variance():
    noise = frame_noise(SHAPE, list(range(30)), 3, Steadiness(noise="correlated", correlation=12))
    assert correlation(noise[3], noise[4]) == pytest.approx(np.cos(np.pi / 2 / 12), abs=0.02)
    assert abs(correlation(noise[0], noise[12])) < 0.03
    assert noise.flatten(1).std(1).sub(1).abs().max() < 0.03


@pytest.mark.parametrize("kind", ["shared", "correlated", "independent"])
def test_noise_is_a_function_of_seed_and_frame(kind):
    config = Steadiness(noise=kind)
    alone = frame_noise(SHAPE, [17], 5, config)[0]
    assert torch.equal(alone, frame_noise(SHAPE, [3, 17, 40], 5, config)[1])
    assert not torch.equal(alone, frame_noise(SHAPE, [17], 6, config)[0])


def test_a_sequential_group_holds_one_frame_of_every_clip():
    assert list(sequential_groups(["a", "b", "a", "b", "a"])) == [[0, 1], [2, 3], [4]]
    assert list(sequential_groups(["a"] * 3)) == [[0], [1], [2]]


SEQUENTIAL = [
    {"reference": "progressive"},
    {"steadiness": Steadiness(start=0.5)},
    {"steadiness": Steadiness(filter=0.3)},
    {"reference": "progressive:widest", "steadiness": Steadiness(start=0.5, filter=0.2)},
]


@pytest.mark.parametrize("settings", SEQUENTIAL, ids=str)
def test_clips_that_advance_together_come_out_as_alone(windows, codec, difftalk, settings):
    """One batch for two clips; or a clip alone, a frame a batch."""
    second = windows.indices(1).start
    draw = generator(difftalk, codec, steps=4, **settings)
    together = draw(batch(windows, 0, second, 1, second + 1, 2, second + 2))
    state = GenerationState()
    alone = torch.cat([draw(batch(windows, second + frame), state) for frame in range(3)])
    torch.testing.assert_close(together[1::2], alone, atol=2e-3, rtol=0)
    without = torch.cat([draw(batch(windows, second + frame)) for frame in range(3)])
    assert torch.allclose(without[0], alone[0], atol=1e-4), "the first frame has nothing before it"
    assert not torch.allclose(without[1:], alone[1:], atol=1e-2), "the others have"


def test_after_a_gap_a_clip_begins_anew(windows, codec, difftalk):
    draw, state = generator(difftalk, codec, reference="progressive"), GenerationState()
    draw(batch(windows, 0, 1), state)
    assert torch.allclose(draw(batch(windows, 5), state), draw(batch(windows, 5)), atol=1e-4)


def test_the_progressive_reference_is_the_frame_just_generated(windows, codec, difftalk):
    """As if the first frame had been the window's own reference."""
    draw, state = generator(difftalk, codec, reference="progressive"), GenerationState()
    first = draw(batch(windows, 10), state)
    second = draw(batch(windows, 11), state)
    independent = generator(difftalk, codec)({**batch(windows, 11), "reference": first})
    assert torch.equal(second, independent)
    assert not torch.equal(second, generator(difftalk, codec)(batch(windows, 11)))


def test_guidance_goes_from_the_silent_prediction_through_the_usual_one(windows, codec, difftalk):
    """The first prediction is linear in w: at 0 that without sound, at 1 the usual one."""
    window = batch(windows, 3)

    def first(weight, audio=window["audio"]):
        draw = generator(difftalk, codec, 0.1, guidance=weight)
        z = torch.zeros(1, 3, 16, 16)
        condition = draw._condition({**window, "audio": audio}, z, z)
        return draw._predict(condition, z + 0.5, torch.tensor([400]))

    silent, usual = first(1, torch.zeros_like(window["audio"])), first(1)
    torch.testing.assert_close(first(0), silent)
    torch.testing.assert_close(first(3), silent + 3 * (usual - silent))
    assert not torch.allclose(silent, usual)


def test_guidance_needs_a_model_that_was_trained_without_sound(difftalk, codec):
    with pytest.raises(UserError, match="audio_dropout"):
        generator(difftalk, codec, guidance=2.0)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_starting_from_a_latent_takes_the_last_part_of_the_steps(name):
    """A perfect predictor of that very latent gives it back, and is asked only so often."""
    schedule, asked = NoiseSchedule(), []
    z, noise = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))

    def predict(z_t, t):
        asked.append(float(t[0]))
        signal = schedule.alphas_cumprod[t.long()].float()[:, None, None, None]
        return (z_t - signal.sqrt() * z) / (1 - signal).sqrt()

    out = sample(predict, noise, scheduler=schedule.scheduler(name), steps=20, previous=z, start=0.25)
    assert len(asked) == 5 and max(asked) < 300
    assert (out - z).abs().mean() < 0.05, "DDIM as published ends at the noise of the first timestep"


@pytest.mark.parametrize(
    "values", [{"noise": "pink"}, {"correlation": 0}, {"start": 0.0}, {"start": 1.5}, {"filter": 1.0}]
)
def test_odd_settings_are_refused(values):
    with pytest.raises(UserError, match="steadiness"):
        Steadiness(**values)
