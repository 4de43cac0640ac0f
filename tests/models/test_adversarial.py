"""The discriminator and the losses of stage 1, by hand."""

import pytest
import torch

from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss


def test_default_is_the_published_discriminator(count_parameters):
    torch.manual_seed(0)
    model = PatchGAN()
    assert count_parameters(model) == 2_765_633
    assert model(torch.zeros(2, 3, 256, 256)).shape == (2, 1, 30, 30)
    weights = torch.cat([layer.weight.flatten() for layer in model.main if isinstance(layer, torch.nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    PatchGAN(filters=4).eval()(image)[0, 0, 7, 7].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    assert (seen.any(0).sum().item(), seen.any(1).sum().item()) == (70, 70), "pixels of a patch"


def test_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3))
    assert adversarial_loss(torch.tensor([1.0, 3.0])) == -2


def test_adaptive_weight_is_the_bounded_ratio_of_gradients():
    weight = torch.ones(4, requires_grad=True)
    reconstruction, generator = 3 * weight.sum(), -0.5 * weight.sum()  # gradients of norm 6 and 1
    result = adaptive_weight(reconstruction, generator, weight)
    assert result.item() == pytest.approx(0.75 * 6 / (1 + 1e-4)) and not result.requires_grad
    (reconstruction + result * generator).backward()  # the graph is still there
    assert adaptive_weight(1e9 * weight.sum(), 1e-9 * weight.sum(), weight).item() == 7500
    half = torch.ones(8, dtype=torch.float16, requires_grad=True)
    result = adaptive_weight((30000 * half).sum(), (30000 * half).sum(), half)
    assert result.item() == pytest.approx(0.75, rel=1e-3), "no overflow"
