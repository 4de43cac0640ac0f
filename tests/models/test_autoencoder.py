"""The VQ autoencoder against the published first stage, and its quantisation against numpy."""

import numpy as np
import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.configuration import from_dict
from difftalk_pl.training.published import FIRST_STAGE, autoencoder_config, below, convert_autoencoder

SMALL = AutoencoderConfig((16, 32), layers_per_block=1, codes=32, norm_num_groups=4, mid_block_attention=False)


@pytest.fixture
def small():
    torch.manual_seed(0)
    network = Autoencoder(SMALL)
    with torch.no_grad():
        network.codes.normal_()
    return network


def test_default_is_the_published_size(count_parameters):
    with torch.device("meta"):
        model, plain = Autoencoder(), Autoencoder(AutoencoderConfig(mid_block_attention=False))
    assert (count_parameters(model), model.config.factor) == (55_322_782, 4)
    # two blocks of four 512 x 512 maps with biases and a norm
    assert count_parameters(model) - count_parameters(plain) == 2 * (4 * (512 * 512 + 512) + 2 * 512)


@pytest.mark.oracle
def test_equals_the_published_first_stage(golden, record_difference):
    expected = golden("vq_width32")
    published = below(expected.state_dict(), FIRST_STAGE)
    config = autoencoder_config(published)
    assert config == AutoencoderConfig((32, 64, 128), codes=64)
    model = Autoencoder(config).eval()
    model.load_state_dict(convert_autoencoder(published, len(config.block_out_channels)), strict=True)
    with torch.no_grad():
        result = model(expected["x"])
        quantised = model.quantise(result.z)
        decoded = model.decode(result.z)
    found = {
        "first stage, z": (result.z, "z"),
        "first stage, quantised": (quantised.z_q, "z_q"),
        "first stage, codebook loss": (result.codebook_loss, "codebook_loss"),
        "first stage, reconstruction": (result.image, "reconstruction"),
        "first stage, decoded": (decoded, "reconstruction"),
    }
    for name, (value, key) in found.items():
        record_difference(name, (value - expected[key]).abs().max(), 5e-5)
    differing = (result.indices.flatten() != expected["indices"]).sum()
    record_difference("first stage, indices that differ", differing.double(), 0)


def test_quantises_to_the_nearest_code(small):
    z = torch.randn(2, 3, 5, 4, requires_grad=True)
    codebook = small.codes.detach().numpy()
    result = small.quantise(z)
    cells = z.detach().permute(0, 2, 3, 1).numpy()
    distances = ((cells[..., None, :] - codebook) ** 2).sum(-1)
    nearest = distances.argmin(-1)
    assert np.array_equal(result.indices.numpy(), nearest)
    np.testing.assert_allclose(result.z_q.detach().permute(0, 2, 3, 1), codebook[nearest], rtol=1e-4, atol=1e-5)
    assert result.codebook_loss.item() == pytest.approx(1.25 * distances.min(-1).mean() / 3, rel=1e-4)


def test_gradients_pass_the_quantisation_and_pull_codes_a_quarter_as_hard(small):
    z, weight = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(1, 3, 4, 4)
    result = small.quantise(z)
    (through,) = torch.autograd.grad((weight * result.z_q).sum(), z, retain_graph=True)
    assert torch.equal(through, weight)
    pull_z, pull_codes = torch.autograd.grad(result.codebook_loss, (z, small.codes))
    torch.testing.assert_close(pull_codes.sum(0), -0.25 * pull_z.sum((0, 2, 3)))


def test_without_quantisation_the_codebook_has_no_part(small):
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = small(image, quantise=False)
    assert plain.indices is None and plain.codebook_loss == 0 and plain.z.shape == (1, 3, 8, 8)
    assert torch.equal(small.decode(plain.z, quantise=False), plain.image)
    assert not torch.allclose(small(image).image, plain.image)
    torch.testing.assert_close(small.decode(plain.z), small(image).image)


def losses(autocast):
    """Losses and adaptive weight of one batch, and the gradient at the decoder's last layer."""
    torch.manual_seed(0)
    network, discriminator = Autoencoder(SMALL), PatchGAN(filters=8, layers=2)
    with torch.no_grad():
        network.codes.normal_()
    image = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = network(image)
        l1 = torch.nn.functional.l1_loss(output.image, image)
        generator = adversarial_loss(discriminator(output.image))
        weight = adaptive_weight(l1, generator, network.last_layer)
        hinge = hinge_discriminator_loss(discriminator(image), discriminator(output.image.detach()))
    (l1 + output.codebook_loss + weight * generator).backward()
    values = {"l1": l1, "codebook": output.codebook_loss, "generator": generator, "weight": weight, "hinge": hinge}
    return values, network.last_layer.grad


def test_losses_under_bfloat16_are_float32_and_close_to_those_of_float32():
    half, gradient = losses(True)
    full, expected = losses(False)
    assert {value.dtype for value in half.values()} == {torch.float32} and gradient.dtype == torch.float32
    for name, value in full.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.01), name
    assert (gradient - expected).norm() < 0.15 * expected.norm()


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="expected 3 entries"):
        AutoencoderConfig(attention_levels=(True,))
    with pytest.raises(UserError, match="48 channels cannot be split into 32 groups"):
        AutoencoderConfig((48, 64))
    with pytest.raises(ValueError, match="'codez'"):
        from_dict(AutoencoderConfig, {"codez": 3})
