"""The adversarial part of stage 1: patch discriminator, losses and adaptive weight, as in VQ-GAN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchGAN(nn.Module):
    """One real/fake logit per overlapping patch, image (B, C, H, W) -> (B, 1, H / 2^layers - 2, ...).

    Three layers see patches of 70 px. The attribute is `main`, as in published checkpoints.
    """

    def __init__(self, in_channels: int = 3, filters: int = 64, layers: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(in_channels, filters, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        width = filters
        for layer in range(1, layers + 1):
            following = filters * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            blocks += [
                nn.Conv2d(width, following, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(following),
                nn.LeakyReLU(0.2, True),
            ]
            width = following
        self.main = nn.Sequential(*blocks, nn.Conv2d(width, 1, 4, stride=1, padding=1))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.main(image)


def _initialise(module: nn.Module) -> None:
    """Initialise as published: a discriminator that starts larger overpowers the decoder."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss in float32, from logits of real and reconstructed images."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def adversarial_loss(fake: Tensor) -> Tensor:
    """Return the autoencoder's adversarial loss in float32, from logits of reconstructions."""
    return -fake.float().mean()


def adaptive_weight(
    reconstruction_loss: Tensor, generator_loss: Tensor, last_layer: Tensor, maximum: float = 1e4, scale: float = 0.75
) -> Tensor:
    """Return the weight, without gradient, at which both losses pull equally at `last_layer`, times `scale`.

    Norms are float32: in float16 they overflow, in bfloat16 the 1e-4 is lost.
    """
    (reconstruction,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (generator,) = torch.autograd.grad(generator_loss, last_layer, retain_graph=True)
    ratio = reconstruction.float().norm() / (generator.float().norm() + 1e-4)
    return scale * ratio.clamp(0, maximum).detach()
