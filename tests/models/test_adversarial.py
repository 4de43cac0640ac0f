import pytest
import torch

from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss


def test_default_is_the_published_discriminator(count_parameters):
    model = PatchGAN()
    assert count_parameters(model) == 2_765_633  # 2_764_737 with affine-free InstanceNorm and biases
    assert model(torch.zeros(2, 3, 256, 256)).shape == (2, 1, 30, 30)


@pytest.mark.parametrize(("layers", "field"), [(2, 34), (3, 70)])
def test_a_logit_sees_one_patch(layers, field):
    model = PatchGAN(filters=4, layers=layers).eval()
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = model(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    assert (seen.any(0).sum().item(), seen.any(1).sum().item()) == (field, field)


def test_published_initialisation():
    torch.manual_seed(0)
    model = PatchGAN()
    weights = torch.cat([layer.weight.flatten() for layer in model.main if isinstance(layer, torch.nn.Conv2d)])
    norms = torch.cat([layer.weight for layer in model.main if isinstance(layer, torch.nn.BatchNorm2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert norms.mean().item() == pytest.approx(1, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)


def test_hinge_stops_at_the_margin():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3))
    assert hinge_discriminator_loss(torch.zeros(4), torch.zeros(4)) == 1
    assert hinge_discriminator_loss(torch.full((4,), 9.0), torch.full((4,), -9.0)) == 0


def test_generator_wants_high_logits():
    assert adversarial_loss(torch.tensor([1.0, 3.0])) == -2


def test_adaptive_weight_is_the_ratio_of_gradients():
    weight = torch.ones(4, requires_grad=True)
    reconstruction, generator = 3 * weight.sum(), -0.5 * weight.sum()  # gradients of norm 6 and 1
    result = adaptive_weight(reconstruction, generator, weight)
    assert result.item() == pytest.approx(0.75 * 6 / (1 + 1e-4))
    assert not result.requires_grad
    (reconstruction + result * generator).backward()  # the graph is still there
    assert weight.grad[0].item() == pytest.approx(3 - 0.5 * result.item())


def test_adaptive_weight_is_bounded():
    weight = torch.ones(1, requires_grad=True)
    assert adaptive_weight(1e9 * weight.sum(), 1e-9 * weight.sum(), weight).item() == 7500
    assert adaptive_weight(1e9 * weight.sum(), 1e-9 * weight.sum(), weight, maximum=2, scale=0.5).item() == 1
