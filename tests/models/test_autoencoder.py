import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.training.published import FIRST_STAGE, autoencoder_config, below, convert_autoencoder

SMALL = AutoencoderConfig((8, 16), layers_per_block=1, codes=32, norm_num_groups=4, mid_block_attention=False)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Autoencoder(SMALL)


def test_default_is_the_published_size(count_parameters):
    with torch.device("meta"):
        model = Autoencoder()
    assert count_parameters(model) == 55_322_782
    assert model.config.factor == 4


def test_attention_is_optional(count_parameters):
    with torch.device("meta"):
        with_attention, without = (Autoencoder(AutoencoderConfig(mid_block_attention=there)) for there in (True, False))
    # two blocks of four 512 x 512 maps with biases and a norm
    assert count_parameters(with_attention) - count_parameters(without) == 2 * (4 * (512 * 512 + 512) + 2 * 512)


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
    codebook = torch.randn(32, 3)
    with torch.no_grad():
        small.vq.quantize.embedding.weight.copy_(codebook)
    result = small.quantise(z)
    cells = z.detach().permute(0, 2, 3, 1).numpy()
    distances = ((cells[..., None, :] - codebook.numpy()) ** 2).sum(-1)
    nearest = distances.argmin(-1)
    assert np.array_equal(result.indices.numpy(), nearest)
    np.testing.assert_allclose(result.z_q.detach().permute(0, 2, 3, 1), codebook.numpy()[nearest], atol=1e-6)
    assert result.codebook_loss.item() == pytest.approx(1.25 * distances.min(-1).mean() / 3, rel=1e-5)


def test_gradients_pass_the_quantisation_and_pull_codes_a_quarter_as_hard(small):
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    weight = torch.randn(1, 3, 4, 4)
    result = small.quantise(z)
    (through,) = torch.autograd.grad((weight * result.z_q).sum(), z, retain_graph=True)
    assert torch.equal(through, weight)
    codes = small.vq.quantize.embedding.weight
    pull_z, pull_codes = torch.autograd.grad(result.codebook_loss, (z, codes))
    torch.testing.assert_close(pull_codes.sum(0), -0.25 * pull_z.sum((0, 2, 3)))


def test_without_quantisation_the_codebook_has_no_part(small):
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = small(image, quantise=False)
    assert plain.indices is None
    assert plain.codebook_loss == 0
    assert plain.z.shape == (1, 3, 8, 8)
    with torch.no_grad():
        small.vq.quantize.embedding.weight.add_(5)
    assert torch.equal(small(image, quantise=False).image, plain.image)
    assert torch.equal(small.decode(plain.z, quantise=False), plain.image)
    assert not torch.allclose(small(image).image, plain.image)
    torch.testing.assert_close(small.decode(plain.z), small(image).image)


def test_last_layer_is_where_the_image_comes_out(small):
    with torch.no_grad():
        small.last_layer.zero_()
        image = small(torch.rand(1, 3, 16, 16)).image
    assert (image == image[:, :, :1, :1]).all()


def test_codebook_from_vectors_is_used_and_repeats(small):
    vectors = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    z = vectors.T.reshape(1, 3, 20, 25)
    before = len(small.quantise(z).indices.unique())
    small.initialise_codebook(vectors, seed=7)
    assert len(small.quantise(z).indices.unique()) == 32 > before
    first = small.vq.quantize.embedding.weight.clone()
    small.initialise_codebook(vectors, seed=7)
    assert torch.equal(first, small.vq.quantize.embedding.weight)


def test_codebook_needs_as_many_distinct_vectors_as_codes(small):
    repeated = torch.randn(31, 3).repeat(100, 1)
    with pytest.raises(ValueError, match="31 distinct vectors cannot fill 32 codes"):
        small.initialise_codebook(repeated)
    exactly = torch.randn(32, 3)
    small.initialise_codebook(exactly.repeat(3, 1))
    codes = small.vq.quantize.embedding.weight.detach()
    torch.testing.assert_close(codes[codes[:, 0].argsort()], exactly[exactly[:, 0].argsort()])


def test_config_survives_json_and_refuses_unknown_keys():
    assert AutoencoderConfig.from_dict(json.loads(json.dumps(asdict(SMALL)))) == SMALL
    with pytest.raises(ValueError, match="'codez'"):
        AutoencoderConfig.from_dict({"codez": 3})
