"""The VQ autoencoder against the published first stage, and its quantisation against numpy."""

import numpy as np
import pytest
import torch

from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
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
        model = Autoencoder()
    assert (count_parameters(model), model.config.factor) == (55_322_782, 4)


@pytest.mark.oracle
@torch.no_grad()
def test_equals_the_published_first_stage(golden, record_difference):
    expected = golden("vq_width32")
    published = below(expected.state_dict(), FIRST_STAGE)
    config = autoencoder_config(published)
    assert config == AutoencoderConfig((32, 64, 128), codes=64)
    model = Autoencoder(config).eval()
    model.load_state_dict(convert_autoencoder(published, len(config.block_out_channels)), strict=True)
    result = model(expected["x"])
    found = {
        "first stage, z": (result.z, "z"),
        "first stage, quantised": (model.quantise(result.z).z_q, "z_q"),
        "first stage, codebook loss": (result.codebook_loss, "codebook_loss"),
        "first stage, reconstruction": (result.image, "reconstruction"),
        "first stage, decoded": (model.decode(result.z), "reconstruction"),
    }
    for name, (value, key) in found.items():
        record_difference(name, (value - expected[key]).abs().max(), 5e-5)
    differing = (result.indices.flatten() != expected["indices"]).sum()
    record_difference("first stage, indices that differ", differing.double(), 0)


def test_quantises_to_the_nearest_code(small):
    z, weight = torch.randn(2, 3, 5, 4, requires_grad=True), torch.randn(2, 3, 5, 4)
    codebook = small.codes.detach().numpy()
    result = small.quantise(z)
    distances = ((z.detach().permute(0, 2, 3, 1).numpy()[..., None, :] - codebook) ** 2).sum(-1)
    nearest = distances.argmin(-1)
    assert np.array_equal(result.indices.numpy(), nearest)
    np.testing.assert_allclose(result.z_q.detach().permute(0, 2, 3, 1), codebook[nearest], rtol=1e-4, atol=1e-5)
    assert result.codebook_loss.item() == pytest.approx(1.25 * distances.min(-1).mean() / 3, rel=1e-4)
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
