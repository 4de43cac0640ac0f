"""Loading tensors into a network: all of them or none, and by name what does not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.training.safe_unpickling import listed


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: Path, assign: bool = False) -> None:
    """Strict loading with an error that names what does not fit; `assign` takes the tensors themselves."""
    refuse_misfits(network, state, source)
    network.load_state_dict(dict(state), strict=True, assign=assign)


def refuse_misfits(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Raises UserError unless names, shapes and kinds of numbers are the network's; widths of floats may differ."""
    if misfits := _misfits(network.state_dict(), state):
        raise UserError(f"{source}: weights do not fit the configured network: {misfits}")


def refuse_not_finite(state: Mapping[str, Tensor], source: Path) -> None:
    """Raises UserError that names tensors with NaN or infinity. Every number is read."""
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    if names := [name for name, value in floats.items() if not value.float().isfinite().all()]:
        raise UserError(
            f"{source}: {len(names)} tensors hold numbers that are not finite, so it is damaged or its training broke "
            f"down: {listed(names)}"
        )


def refuse_without_optimizer(checkpoint: Mapping[str, Any], trainer: Any) -> None:
    """Raises UserError where fit would go on from weights alone; Lightning would raise a KeyError after this."""
    if trainer.state.fn == "fit" and "optimizer_states" not in checkpoint:
        source = trainer.ckpt_path
        raise UserError(
            f"{source}: holds weights and no optimizer, as files made by import-checkpoint do, so fit cannot go on "
            f"from it; to start from its weights: --ckpt_path null --model.init_args.init_from {source}"
        )


def _misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What is missing, left over, of another shape or of another kind of numbers, by name."""
    both = [name for name in expected if name in state]
    shapes = {name: (tuple(state[name].shape), tuple(expected[name].shape)) for name in both}
    kinds = {name: (_kind(state[name]), _kind(expected[name])) for name in both}
    found = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": _different(shapes),
        "of another kind": _different(kinds),
    }
    return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in found.items() if names)


def _different(pairs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name} {theirs} in place of {ours}" for name, (theirs, ours) in pairs.items() if theirs != ours]


def _kind(value: Tensor) -> str:
    if value.layout != torch.strided:
        return "sparse"
    if value.is_complex():
        return "complex numbers"
    return "floats" if value.is_floating_point() else "whole numbers"
