import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DenoiserConfig, build_denoiser, predict_noise
from difftalk_pl.training.published import DENOISER, below, convert_denoiser, denoiser_config

HEAD_WIDTH = 16  # of the oracle's network


def test_default_is_the_published_size(count_parameters):
    with torch.device("meta"):
        unet = build_denoiser(DenoiserConfig())
    assert len(unet.state_dict()) == 688
    assert count_parameters(unet) == 530_152_963


@torch.no_grad()
def error_against_published(expected, head_width):
    published = below(expected.state_dict(), DENOISER)
    config = denoiser_config(published, head_width)
    unet = build_denoiser(config).eval()
    unet.load_state_dict(below(convert_denoiser(published, config.layers_per_block), "denoiser."), strict=True)
    condition = Condition(expected["context"], expected["z"][:, 3:])
    return (predict_noise(unet, expected["z"][:, :3], expected["t"], condition) - expected["out"]).abs().max().item()


@pytest.mark.oracle
def test_equals_the_published_denoiser(golden, record_difference):
    record_difference("denoiser", error_against_published(golden("unet_width32"), HEAD_WIDTH), 5e-5)


@pytest.mark.oracle
def test_the_number_of_heads_shows_in_the_output(golden):
    """Every number of heads loads; another one must not pass the test above."""
    assert error_against_published(golden("unet_width32"), 2 * HEAD_WIDTH) > 1e-3


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
    with pytest.raises(UserError, match=complaint):
        DenoiserConfig(**options)
