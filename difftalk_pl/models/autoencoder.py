"""Stage 1: the VQ autoencoder whose latent space the diffusion works in."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor, nn

_DOWN = {False: "DownEncoderBlock2D", True: "AttnDownEncoderBlock2D"}
_UP = {False: "UpDecoderBlock2D", True: "AttnUpDecoderBlock2D"}


@dataclass
class AutoencoderConfig:
    """Sizes of the autoencoder. The defaults are the published vq-f4: 256 px images, 64 x 64 x 3 latents.

    Args:
        block_out_channels: width of every level; each level after the first halves the side.
        mid_block_attention: self-attention at the deepest level (vq-f4-noattn has none).
        attention_levels: levels with self-attention in every block (vq-f8: the last); empty for none.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2
    latent_channels: int = 3
    codes: int = 8192
    norm_num_groups: int = 32
    mid_block_attention: bool = True
    in_channels: int = 3
    attention_levels: tuple[bool, ...] = ()

    @property
    def factor(self) -> int:
        """Pixels of the image's side per cell of the latent's side."""
        return 2 ** (len(self.block_out_channels) - 1)


class Quantised(NamedTuple):
    """z_q: nearest codes with straight-through gradients, (B, C, h, w). indices: their numbers, (B, h, w)."""

    z_q: Tensor
    codebook_loss: Tensor
    indices: Tensor


class Reconstruction(NamedTuple):
    """image (B, 3, H, W); z before quantisation; loss and indices of the codebook, 0 and None without it."""

    image: Tensor
    z: Tensor
    codebook_loss: Tensor
    indices: Tensor | None


class Autoencoder(nn.Module):
    """The VQModel of diffusers under the names of this project. Latents are never scaled."""

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()) -> None:
        super().__init__()
        self.config = config
        with_attention = config.attention_levels or (False,) * len(config.block_out_channels)
        self.vq = VQModel(
            in_channels=config.in_channels,
            out_channels=config.in_channels,
            down_block_types=tuple(_DOWN[there] for there in with_attention),
            up_block_types=tuple(_UP[there] for there in reversed(with_attention)),
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            num_vq_embeddings=config.codes,
            norm_num_groups=config.norm_num_groups,
            scaling_factor=1.0,
            mid_block_add_attention=config.mid_block_attention,
        )
        self.vq.quantize.sane_index_shape = True  # indices (B, h, w) instead of one flat list

    @property
    def codes(self) -> nn.Parameter:
        """The codebook, (codes, C)."""
        return self.vq.quantize.embedding.weight

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which the adversarial loss's adaptive weight compares gradients."""
        return self.vq.decoder.conv_out.weight

    def encode(self, image: Tensor) -> Tensor:
        """Encode (B, 3, H, W) in [-1, 1], sides divisible by `config.factor`, to z before quantisation."""
        return self.vq.encode(image).latents

    def quantise(self, z: Tensor) -> Quantised:
        """Replace every cell of z (B, C, h, w) by its nearest code.

        codebook_loss: |sg(z_q) - z|^2 + beta |z_q - sg(z)|^2, beta 0.25, on the terms as the published models had it.
        """
        z_q, loss, (_, _, indices) = self.vq.quantize(z)
        return Quantised(z_q, loss, indices)

    def decode(self, z: Tensor, quantise: bool = True) -> Tensor:
        """Decode z (B, C, h, w), before quantisation unless `quantise` is False, to an image (B, 3, H, W)."""
        return self.vq.decode(z, force_not_quantize=not quantise).sample

    def forward(self, image: Tensor, quantise: bool = True) -> Reconstruction:
        """Encode and decode; without `quantise` as a plain autoencoder, for the codebook's warm-up."""
        z = self.encode(image)
        if not quantise:
            return Reconstruction(self.decode(z, quantise=False), z, z.new_zeros(()), None)
        quantised = self.quantise(z)
        return Reconstruction(self.decode(quantised.z_q, quantise=False), z, quantised.codebook_loss, quantised.indices)

    @torch.no_grad()
    def normalise_latents(self, vectors: Tensor) -> Tensor:
        """Normalise z by the statistics of its cells (N, C), within the 1 x 1 convolutions around the codebook.

        Diffusion expects about unit variance. An unquantised pass decodes the same as before. Not in the paper.
        """
        mean, deviation = vectors.mean(0), vectors.std(0).clamp(min=1e-6)
        before, after = self.vq.quant_conv, self.vq.post_quant_conv
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= deviation[None, :, None, None]
        before.weight /= deviation[:, None, None, None]
        before.bias.copy_((before.bias - mean) / deviation)
        return (vectors - mean) / deviation
