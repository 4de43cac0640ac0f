"""Published names and shapes to networks, against a first stage that is computed without diffusers."""

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training import published
from tests.published import DENOISER, FIRST_STAGE, FirstStage, first_stage, first_stage_shapes, golden_state

VQ_F8 = {"widths": (32, 64, 64, 128), "latent": 4, "attention_levels": (3,)}
TOLERANCE = 5e-5


def load(state):
    config = published.autoencoder_config(state)
    model = Autoencoder(config).eval()
    model.load_state_dict(published.convert_autoencoder(state, len(config.block_out_channels)), strict=True)
    return model


def test_the_names_and_shapes_used_here_are_the_published_ones():
    expected = {name: tuple(value.shape) for name, value in golden_state("vq_width32").items()}
    assert {FIRST_STAGE + name: shape for name, shape in first_stage_shapes().items()} == expected


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"mid_attention": False},
        VQ_F8,
        {"widths": (32, 32, 64), "blocks": 1, "attention_levels": (1, 2), "codes": 9},
        {"widths": (64,), "blocks": 3},
    ],
    ids=["vq-f4", "vq-f4-noattn", "vq-f8", "attention at two levels", "one level"],
)
@torch.no_grad()
def test_a_first_stage_computes_what_its_tensors_say(sizes, record_difference):
    state = first_stage(**sizes)
    model, reference = load(state), FirstStage(state)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = reference.encode(image)
    record_difference("published first stage, encoder", (model.encode(image) - z).abs().max(), TOLERANCE)
    picture = reference.decode(z)
    record_difference("published first stage, decoder", (model.decode(z, False) - picture).abs().max(), TOLERANCE)
    assert torch.equal(model.vq.quantize.embedding.weight, state["quantize.embedding.weight"])


def test_sizes_of_the_published_first_stages_come_from_shapes():
    def config(**sizes):
        shapes = first_stage_shapes(**sizes)
        return published.autoencoder_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})

    assert config(widths=(128, 256, 512), codes=8192) == AutoencoderConfig()
    no_attention = config(widths=(128, 256, 512), codes=8192, mid_attention=False)
    assert no_attention == AutoencoderConfig(mid_block_attention=False)
    f8 = config(widths=(128, 256, 256, 512), codes=16384, latent=4, attention_levels=(3,))
    assert f8 == AutoencoderConfig(
        (128, 256, 256, 512), latent_channels=4, codes=16384, attention_levels=(False, False, False, True)
    )


def test_attention_levels_need_an_entry_a_level():
    with pytest.raises(UserError, match="expected 3 entries"):
        AutoencoderConfig(attention_levels=(True,))


def test_sizes_of_the_published_denoiser_come_from_shapes():
    shapes = {name: value.shape for name, value in published.below(golden_state("unet_width32"), DENOISER).items()}
    context = 128  # the one width that does not grow with the network

    def grown(name, shape):
        keep = {"input_blocks.0.0.weight": (1,), "out.2.weight": (0,), "out.2.bias": (0,)}.get(name, ())
        keep += (1,) if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else ()
        return tuple(n if axis in keep or axis > 1 else 8 * n for axis, n in enumerate(shape))

    full = {name: torch.empty(grown(name, shape), device="meta") for name, shape in shapes.items()}
    ones = [name for name in full if name.endswith(("proj_in.weight", "proj_out.weight", "skip_connection.weight"))]
    assert ones and all(full[name].shape[2:] == (1, 1) for name in ones)
    assert published.denoiser_config(full) == DenoiserConfig(context_width=context)
    assert sum(value.numel() for value in full.values()) == 530_152_963


def test_heads_follow_from_their_width():
    state = published.below(golden_state("unet_width32"), DENOISER)
    assert published.denoiser_config(state, 16).heads == (2, 4, 6, 8)
    with pytest.raises(UserError, match=r"96 channels .* width 64: give another --head-width"):
        published.denoiser_config(state, 64)


def test_a_tensor_without_a_place_is_named():
    with pytest.raises(UserError, match=r"1 tensors .*quantize\.used"):
        load(first_stage() | {"quantize.used": torch.ones(2)})
    with pytest.raises(RuntimeError, match=r"Unexpected .*encoder\.down\.0\.extra\.weight"):
        load(first_stage() | {"encoder.down.0.extra.weight": torch.ones(1)})
    denoiser = published.below(golden_state("unet_width32"), DENOISER) | {"label_emb.weight": torch.ones(3)}
    with pytest.raises(UserError, match=r"1 tensors .*label_emb\.weight"):
        published.convert_denoiser(denoiser, 2)


@pytest.mark.parametrize("name", ["encoder.conv_out.weight", "encoder.down.0.block.0.conv1.weight"])
def test_a_missing_tensor_is_named(name):
    state = first_stage()
    del state[name]
    with pytest.raises(UserError, match=f"incomplete: {name} is missing"):
        load(state)


def test_a_denoiser_without_some_of_its_blocks_is_refused():
    state = published.below(golden_state("unet_width32"), DENOISER)
    fewer = {name: value for name, value in state.items() if not name.startswith("input_blocks.11.")}
    with pytest.raises(UserError, match=r"11 input blocks .* 4 levels"):
        published.denoiser_config(fewer)
    with pytest.raises(UserError, match=r"input_blocks\.0\.0\.weight has the shape \(3,\)"):
        published.denoiser_config(state | {"input_blocks.0.0.weight": torch.zeros(3)}, 16)


def test_codes_of_another_width_than_the_latents_are_refused():
    state = first_stage() | {"quantize.embedding.weight": torch.zeros(64, 5)}
    with pytest.raises(UserError, match="codes of width 5 for latents of 3 channels"):
        published.autoencoder_config(state)


@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule(), NoiseSchedule(200), NoiseSchedule(1000, 1e-4, 2e-2, "linear"), NoiseSchedule(50, 0.1, 0.3)],
)
def test_the_schedule_is_read_off_the_betas(schedule):
    buffers = {"betas": schedule.betas.float(), "alphas_cumprod": schedule.alphas_cumprod.float()}
    assert published.noise_schedule(buffers) == schedule


def test_another_schedule_is_refused():
    squared_cosine = torch.cos(torch.linspace(0, 1.5, 1001, dtype=torch.float64)) ** 2
    betas = 1 - squared_cosine[1:] / squared_cosine[:-1]
    with pytest.raises(UserError, match="1000 betas"):
        published.noise_schedule({"betas": betas.float()})
    released = NoiseSchedule()
    with pytest.raises(UserError, match="1000 betas"):
        published.noise_schedule({"betas": released.betas, "alphas_cumprod": released.alphas_cumprod * 1.001})


def test_averages_are_found_under_names_without_dots():
    own = {"a.b.weight": torch.zeros(2), "a.bias": torch.zeros(1)}
    state = {"model_ema.abweight": torch.ones(2), "model_ema.abias": torch.ones(1), "model_ema.decay": torch.zeros(())}
    assert {name: value.sum().item() for name, value in published.averaged(state, own).items()} == {
        "a.b.weight": 2,
        "a.bias": 1,
    }
    del state["model_ema.abias"]
    with pytest.raises(UserError, match=r"1 weights have no average: a\.bias; --raw"):
        published.averaged(state, own)
