"""Checkpoints under the names of the published code, and their first stage computed without diffusers."""

from pathlib import Path

import torch
from torch.nn import functional as F

from tests.models.conftest import GOLDEN, Oracle, oracle_tensor

NORM_GROUPS = 32
DENOISER = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."


def golden_state(name):
    return Oracle(GOLDEN / f"{name}.npz").state_dict()


def averages(state):
    """Moving averages as the published code names them, and its two counters."""
    kept = {name.removeprefix("model.").replace(".", ""): value for name, value in state.items()}
    counters = {"decay": torch.tensor(0.9999), "num_updates": torch.tensor(123, dtype=torch.int)}
    return {f"model_ema.{name}": value for name, value in (kept | counters).items()}


def schedule_buffers(steps=1000, start=0.0015, end=0.0195):
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    left = torch.cumprod(1 - betas, 0)
    return {"betas": betas.float(), "alphas_cumprod": left.float(), "sqrt_alphas_cumprod": left.sqrt().float()}


def stage_two():
    """All that a checkpoint of the released code's stage 2 holds, at base width 32 with heads of width 16."""
    denoiser = golden_state("unet_width32")
    parts = golden_state("condition_nets") | golden_state("vq_width32")
    last_step = {name: 0.5 * value for name, value in denoiser.items()}
    return last_step | averages(denoiser) | parts | schedule_buffers()


def first_stage(**sizes):
    return {name: oracle_tensor(name, shape) for name, shape in first_stage_shapes(**sizes).items()}


def first_stage_shapes(
    widths=(32, 64, 128), blocks=2, latent=3, codes=64, mid_attention=True, attention_levels=(), channels=3
):
    """{name: shape} of a published VQ autoencoder."""
    deepest, shapes = widths[-1], {}

    def layer(name, out, inside, side):
        shapes.update({f"{name}.weight": (out, inside, side, side), f"{name}.bias": (out,)})

    def norm(name, width):
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def block(name, inside, out):
        norm(f"{name}.norm1", inside)
        layer(f"{name}.conv1", out, inside, 3)
        norm(f"{name}.norm2", out)
        layer(f"{name}.conv2", out, out, 3)
        if inside != out:
            layer(f"{name}.nin_shortcut", out, inside, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.{part}", width, width, 1)

    def middle(name):
        block(f"{name}.mid.block_1", deepest, deepest)
        if mid_attention:
            attention(f"{name}.mid.attn_1", deepest)
        block(f"{name}.mid.block_2", deepest, deepest)

    def level(name, number, inside, count):
        for index in range(count):
            block(f"{name}.{number}.block.{index}", inside if index == 0 else widths[number], widths[number])
            if number in attention_levels:
                attention(f"{name}.{number}.attn.{index}", widths[number])

    layer("encoder.conv_in", widths[0], channels, 3)
    for number, width in enumerate(widths):
        level("encoder.down", number, widths[max(number - 1, 0)], blocks)
        if number < len(widths) - 1:
            layer(f"encoder.down.{number}.downsample.conv", width, width, 3)
    middle("encoder")
    norm("encoder.norm_out", deepest)
    layer("encoder.conv_out", latent, deepest, 3)
    layer("decoder.conv_in", deepest, latent, 3)
    middle("decoder")
    for number, width in enumerate(widths):
        level("decoder.up", number, widths[min(number + 1, len(widths) - 1)], blocks + 1)
        if number > 0:
            layer(f"decoder.up.{number}.upsample.conv", width, width, 3)
    norm("decoder.norm_out", widths[0])
    layer("decoder.conv_out", channels, widths[0], 3)
    shapes["quantize.embedding.weight"] = (codes, latent)
    layer("quant_conv", latent, latent, 1)
    layer("post_quant_conv", latent, latent, 1)
    return shapes


class FirstStage:
    """A published VQ autoencoder, from its tensors alone."""

    def __init__(self, state):
        self.state = state

    def encode(self, image):
        """(B, 3, H, W) -> z before quantisation."""
        x = self._convolve("encoder.conv_in", image, padding=1)
        levels = len({name.split(".")[2] for name in self.state if name.startswith("encoder.down.")})
        for level in range(levels):
            x = self._level(f"encoder.down.{level}", x)
            if level < levels - 1:
                x = self._convolve(f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        return self._convolve("quant_conv", self._end("encoder", self._middle("encoder", x)))

    def decode(self, z):
        """z (B, C, h, w), as given -> (B, 3, H, W)."""
        x = self._convolve("decoder.conv_in", self._convolve("post_quant_conv", z), padding=1)
        x = self._middle("decoder", x)
        levels = len({name.split(".")[2] for name in self.state if name.startswith("decoder.up.")})
        for level in reversed(range(levels)):
            x = self._level(f"decoder.up.{level}", x)
            if level > 0:
                larger = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
                x = self._convolve(f"decoder.up.{level}.upsample.conv", larger, padding=1)
        return self._end("decoder", x)

    def _level(self, name, x):
        number = 0
        while f"{name}.block.{number}.conv1.weight" in self.state:
            x = self._attend(f"{name}.attn.{number}", self._block(f"{name}.block.{number}", x))
            number += 1
        return x

    def _middle(self, name, x):
        x = self._attend(f"{name}.mid.attn_1", self._block(f"{name}.mid.block_1", x))
        return self._block(f"{name}.mid.block_2", x)

    def _end(self, name, x):
        return self._convolve(f"{name}.conv_out", F.silu(self._norm(f"{name}.norm_out", x)), padding=1)

    def _block(self, name, x):
        inner = self._convolve(f"{name}.conv1", F.silu(self._norm(f"{name}.norm1", x)), padding=1)
        inner = self._convolve(f"{name}.conv2", F.silu(self._norm(f"{name}.norm2", inner)), padding=1)
        return inner + (self._convolve(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.state else x)

    def _attend(self, name, x):
        if f"{name}.q.weight" not in self.state:
            return x
        normed = self._norm(f"{name}.norm", x)
        q, k, v = (self._convolve(f"{name}.{part}", normed).flatten(2) for part in ("q", "k", "v"))
        share = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5, dim=-1)
        return x + self._convolve(f"{name}.proj_out", torch.einsum("bij,bcj->bci", share, v).view_as(x))

    def _norm(self, name, x):
        return F.group_norm(x, NORM_GROUPS, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def _convolve(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)


def save(state, path: Path, **more) -> Path:
    torch.save({"state_dict": state, "epoch": 3, "global_step": 77, **more}, path)
    return path
