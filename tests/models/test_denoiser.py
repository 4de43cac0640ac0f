import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DenoiserConfig, build_denoiser, predict_noise

NARROW = (32, 64, 96, 128)


def test_default_is_the_published_size(count_parameters):
    with torch.device("meta"):
        unet = build_denoiser(DenoiserConfig())
    assert len(unet.state_dict()) == 688
    assert count_parameters(unet) == 530_152_963


@torch.no_grad()
def error_against_published(expected, heads):
    unet = build_denoiser(DenoiserConfig(NARROW, heads=heads)).eval()
    unet.load_state_dict(convert_ldm_unet_checkpoint(expected.state_dict(), unet.config), strict=True)
    condition = Condition(expected["context"], expected["z"][:, 3:])
    return (predict_noise(unet, expected["z"][:, :3], expected["t"], condition) - expected["out"]).abs().max().item()


@pytest.mark.oracle
def test_equals_the_published_denoiser(oracle):
    assert error_against_published(oracle("unet_width32"), heads=(2, 4, 6, 8)) < 5e-5


@pytest.mark.oracle
def test_the_number_of_heads_shows_in_the_output(oracle):
    """Every number of heads loads; taking the head width for it must not pass the test above."""
    assert error_against_published(oracle("unet_width32"), heads=(16, 16, 16, 16)) > 1e-3


def test_default_heads_are_32_wide():
    config = DenoiserConfig()
    widths = {width // heads for width, heads in zip(config.block_out_channels, config.heads, strict=True)}
    assert widths == {32}
    with torch.device("meta"):
        unet = build_denoiser(config)
    attention = unet.down_blocks[3].attentions[0].transformer_blocks[0].attn2
    assert attention.heads == 32


def test_small_sizes_and_levels_of_attention():
    unet = build_denoiser(
        DenoiserConfig((16, 32, 32), 1, attention_levels=(False, False, True), heads=(1, 2, 2), norm_num_groups=8)
    )
    assert [hasattr(block, "attentions") for block in unet.down_blocks] == [False, False, True]
    assert [hasattr(block, "attentions") for block in unet.up_blocks] == [True, False, False]
    condition = Condition(torch.randn(2, 1, 128), torch.randn(2, 6, 16, 16))
    noise = predict_noise(unet, torch.randn(2, 3, 16, 16), torch.tensor([0, 999]), condition)
    assert noise.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"heads": (8, 16, 24)}, "heads is .* expected 4 entries"),
        ({"attention_levels": (True,)}, "attention_levels is .* expected 4 entries"),
        ({"block_out_channels": (48, 96, 96, 96), "heads": (5, 4, 4, 4)}, "48 channels .* 5 heads"),
        ({"block_out_channels": (48, 96, 96, 96), "heads": (2, 4, 4, 4)}, "48 channels .* 32 groups"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        DenoiserConfig(**options)
