"""From windows to frames: what must not change, does not; a perfect predictor returns the truth."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import EVALUATION, WindowDataset
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.errors import UserError
from difftalk_pl.generation.sampler import Generator, SamplerConfig, composite, frame_noise, sequential_groups
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.weights import from_dict
from tests.runner import SMALL


@pytest.fixture(scope="module")
def windows(prepared):
    return WindowDataset(open_clips(prepared)[:2], EVALUATION, fixed=True, reference=ReferenceRule(lenient=True))


def collate(windows, *places):
    return torch.utils.data.default_collate([windows[place] for place in places])


@pytest.fixture(scope="module")
def batch(windows):
    return collate(windows, 0, 5, 70, 150)


@pytest.fixture(scope="module")
def difftalk():
    torch.manual_seed(0)
    return DiffTalk(from_dict(DiffTalkConfig, SMALL["diffusion"]["model"]["init_args"]["difftalk"])).eval()


@pytest.fixture(scope="module")
def generator(difftalk, codec):
    network = LatentCodec.load(codec)

    def generator(model=difftalk, dropout=0.0, **sampler):
        settings = SamplerConfig(**{"name": "dpm++", "steps": 2} | sampler)
        return Generator(model, network, NoiseSchedule(), settings, dropout)

    return generator


class Oracle(torch.nn.Module):
    """Knows x_start and so the noise in every z_t."""

    def __init__(self, z_start, schedule):
        super().__init__()
        self.z_start, self.acp = z_start, schedule.alphas_cumprod

    def condition(self, audio, landmarks, z_masked, z_reference):
        return Condition(torch.zeros(len(z_masked), 1, 128), torch.cat([z_masked, z_reference], 1))

    def forward(self, z_t, t, condition):
        signal = self.acp[t.long()].float()[:, None, None, None]
        return (z_t - signal.sqrt() * self.z_start) / (1 - signal).sqrt()


@pytest.mark.parametrize(("sampler", "share"), [("ddim", 0.8), ("dpm++", 0.97), ("unipc", 0.97)])
def test_a_perfect_predictor_gives_the_codecs_own_picture_of_the_truth(batch, generator, sampler, share):
    """DDIM as published stops at the noise of the first timestep, so that more cells fall to a neighbouring code."""
    codec = generator().codec
    z = codec.encode(batch["image"])
    drawn = generator(Oracle(z, NoiseSchedule()), name=sampler, steps=50, known="true", margin=0)(batch)
    truth = composite(codec.decode(z), batch["image"], batch["mask"])
    differing = (drawn - truth).abs().amax(1)[batch["mask"][:, 0] > 0]
    assert (differing < 0.02).float().mean() > share, "but for cells that lie between two codes"


@pytest.mark.parametrize("known", ["masked", "true", "none"])
def test_outside_of_the_mask_the_frame_is_the_input(batch, generator, known):
    drawn = generator(known=known)(batch)
    outside = (batch["mask"] < 0.5).expand_as(drawn)
    assert torch.equal(drawn[outside], batch["image"][outside])
    assert not torch.allclose(drawn[~outside], batch["image"][~outside], atol=0.1)


def test_the_hidden_pixels_of_the_target_cannot_matter(batch, generator):
    """With the default sampler the true mouth has no way into the result."""
    hidden = (batch["mask"] > 0.5).expand_as(batch["image"])
    other = torch.where(hidden, torch.rand_like(batch["image"]), batch["image"])
    assert torch.equal(generator()({**batch, "image": other}), generator()(batch))


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_a_frame_does_not_depend_on_its_batch(batch, generator, noise):
    alone = {key: value[2:3] for key, value in batch.items()}
    draw = generator(noise=noise)
    torch.testing.assert_close(draw(alone)[0], draw(batch)[2], atol=2e-3, rtol=0)


def test_noise_is_one_for_all_frames_or_independent_and_a_function_of_the_seed():
    shape, frames = (3, 64, 64), [0, 7, 900]
    shared, independent = (frame_noise(shape, frames, 3, kind) for kind in ("shared", "independent"))
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])
    assert abs(np.corrcoef(independent.flatten(1))[0, 1:]).max() < 0.03 and abs(independent.std() - 1) < 0.02
    for kind, noise in {"shared": shared, "independent": independent}.items():
        assert not torch.equal(noise, frame_noise(shape, frames, 4, kind))


def test_the_latent_mask_covers_every_hidden_pixel_and_a_margin(generator):
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 21, 42] = 1
    cells = generator(margin=1).latent_mask(mask)
    assert cells.sum() == 9 and cells[0, 0, 4:7, 9:12].all()


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_mixed_precision_rounds_neither_latents_nor_the_steps_between(batch, generator, difftalk, name):
    """Only the network's own arithmetic may be in 16 bits."""
    draw, seen = generator(name=name, steps=3), []
    hook = difftalk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        draw(batch)
        mixed = draw.codec.encode(batch["image"])
    hook.remove()
    assert set(seen) == {torch.float32} and torch.equal(mixed, draw.codec.encode(batch["image"]))


def test_a_sequential_group_holds_one_frame_of_every_clip():
    assert sequential_groups(["a", "b", "a", "b", "a"]) == [[0, 1], [2, 3], [4]]
    assert sequential_groups(["a"] * 3) == [[0], [1], [2]]


def test_clips_that_advance_together_come_out_as_alone(windows, generator):
    """One batch for two clips; or a clip alone, a frame a batch."""
    second = windows.indices(1).start
    draw = generator(reference="progressive")
    together = draw(collate(windows, 0, second, 1, second + 1, 2, second + 2))
    previous = {}
    alone = torch.cat([draw(collate(windows, second + frame), previous) for frame in range(3)])
    torch.testing.assert_close(together[1::2], alone, atol=2e-3, rtol=0)
    assert list(previous) == [windows.clips[1].name]


def test_the_progressive_reference_is_the_frame_just_generated_but_not_after_a_gap(windows, generator):
    """As if the first frame had been the window's own reference."""
    draw, usual, previous = generator(reference="progressive"), generator(), {}
    window = collate(windows, 11)
    first = draw(collate(windows, 10), previous)
    assert torch.equal(draw(window, previous), usual({**window, "reference": first}))
    assert not torch.equal(usual({**window, "reference": first}), usual(window))
    after_a_gap = collate(windows, 15)
    assert torch.equal(draw(after_a_gap, previous), usual(after_a_gap))


def test_guidance_goes_from_the_silent_prediction_through_the_usual_one(windows, generator):
    """The first prediction is linear in w: at 0 that without sound, at 1 the usual one."""
    window = collate(windows, 3)

    def first(weight, audio=window["audio"]):
        draw = generator(dropout=0.1, guidance=weight)
        z = torch.zeros(1, 3, 16, 16)
        condition = draw._condition({**window, "audio": audio}, z, z)
        return draw._predict(condition, z + 0.5, torch.tensor([400]))

    silent, usual = first(1, torch.zeros_like(window["audio"])), first(1)
    torch.testing.assert_close(first(0), silent)
    torch.testing.assert_close(first(3), silent + 3 * (usual - silent))
    assert not torch.allclose(silent, usual)
    with pytest.raises(UserError, match="audio_dropout"):
        generator(guidance=2.0)
