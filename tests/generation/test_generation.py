"""From windows to frames: what must not change, does not; a perfect predictor returns the truth."""

import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import EVALUATION, WindowDataset
from difftalk_pl.generation.sampler import Generator, SamplerConfig, composite
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.configuration import from_dict
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.codec import LatentCodec
from tests.runner import SMALL


@pytest.fixture(scope="module")
def batch(prepared):
    windows = WindowDataset(open_clips(prepared), EVALUATION, fixed=True)
    return torch.utils.data.default_collate([windows[i] for i in (0, 5, 70, 150)])


@pytest.fixture(scope="module")
def difftalk():
    torch.manual_seed(0)
    return DiffTalk(from_dict(DiffTalkConfig, SMALL["diffusion"]["model"]["init_args"]["difftalk"])).eval()


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
def test_a_perfect_predictor_gives_the_codecs_own_picture_of_the_truth(batch, codec, sampler, share):
    """DDIM as published stops at the noise of the first timestep, so that more cells fall to a neighbouring code."""
    network, schedule = LatentCodec.load(codec), NoiseSchedule()
    z = network.encode(batch["image"])
    settings = SamplerConfig(name=sampler, steps=50, known="true", margin=0)
    drawn = Generator(Oracle(z, schedule), network, schedule, settings)(batch)
    truth = composite(network.decode(z), batch["image"], batch["mask"])
    differing = (drawn - truth).abs().amax(1)[batch["mask"][:, 0] > 0]
    assert (differing < 0.02).float().mean() > share, "but for cells that lie between two codes"


@pytest.mark.parametrize("known", ["masked", "true", "none"])
def test_outside_of_the_mask_the_frame_is_the_input(batch, codec, difftalk, known):
    settings = SamplerConfig(name="dpm++", steps=2, known=known)
    drawn = Generator(difftalk, LatentCodec.load(codec), NoiseSchedule(), settings)(batch)
    outside = (batch["mask"] < 0.5).expand_as(drawn)
    assert torch.equal(drawn[outside], batch["image"][outside])
    assert not torch.allclose(drawn[~outside], batch["image"][~outside], atol=0.1)


def test_the_hidden_pixels_of_the_target_cannot_matter(batch, codec, difftalk):
    """With the default sampler the true mouth has no way into the result."""
    generator = Generator(difftalk, LatentCodec.load(codec), NoiseSchedule(), SamplerConfig(name="dpm++", steps=2))
    drawn = generator(batch)
    hidden = (batch["mask"] > 0.5).expand_as(batch["image"])
    other = torch.where(hidden, torch.rand_like(batch["image"]), batch["image"])
    assert torch.equal(generator({**batch, "image": other}), drawn)


def test_a_frame_does_not_depend_on_its_batch(batch, codec, difftalk):
    generator = Generator(difftalk, LatentCodec.load(codec), NoiseSchedule(), SamplerConfig(steps=3))
    alone = {key: value[2:3] for key, value in batch.items()}
    assert torch.allclose(generator(alone)[0], generator(batch)[2], atol=1e-4)


def test_the_latent_mask_covers_every_hidden_pixel_and_a_margin(batch, codec, difftalk):
    generator = Generator(difftalk, LatentCodec.load(codec), NoiseSchedule(), SamplerConfig(margin=1))
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 21, 42] = 1
    cells = generator.latent_mask(mask)
    assert cells.sum() == 9 and cells[0, 0, 5, 10] == 1
    assert cells[0, 0, 4:7, 9:12].all()


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_mixed_precision_rounds_neither_latents_nor_the_steps_between(batch, codec, difftalk, name):
    """Only the network's own arithmetic may be in 16 bits."""
    network, seen = LatentCodec.load(codec), []
    hook = difftalk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        Generator(difftalk, network, NoiseSchedule(), SamplerConfig(name=name, steps=3))(batch)
        mixed = network.encode(batch["image"])
    hook.remove()
    assert set(seen) == {torch.float32} and torch.equal(mixed, network.encode(batch["image"]))
