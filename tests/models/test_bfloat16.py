"""Stage 1 under bfloat16 autocast: what must stay float32 does, and the numbers stay those of float32."""

import pytest
import torch

from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig

SMALL = AutoencoderConfig((16, 32), layers_per_block=1, codes=32, norm_num_groups=4, mid_block_attention=False)


def step(autocast):
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


def test_losses_and_adaptive_weight_are_float32_and_those_of_float32():
    half, gradient = step(True)
    full, expected = step(False)
    assert {value.dtype for value in half.values()} == {torch.float32} and gradient.dtype == torch.float32
    for name, value in full.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.005), name
    assert (gradient - expected).norm() < 0.07 * expected.norm()  # 0.052 without bfloat16 in the processor


def test_a_large_gradient_does_not_overflow_the_adaptive_weight():
    """The square of float16's largest number is far beyond it; of the norm only a float32 one is finite."""
    weight = torch.ones(8, dtype=torch.float16, requires_grad=True)
    result = adaptive_weight((30000 * weight).sum(), (30000 * weight).sum(), weight)
    assert result.dtype == torch.float32 and result.item() == pytest.approx(0.75, rel=1e-3)


def test_codes_of_cells_in_bfloat16_are_the_nearest_in_float32():
    network = Autoencoder(SMALL)
    with torch.no_grad():
        network.codes.normal_()
    z = torch.randn(2, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        indices = network.quantise(z).indices.flatten()
    cells = z.double().movedim(1, -1).reshape(-1, 3)
    nearest = torch.cdist(cells, network.codes.detach().double()).argmin(1)
    assert torch.equal(indices, nearest)
