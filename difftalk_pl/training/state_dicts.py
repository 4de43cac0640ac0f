"""The named tensors of a published checkpoint, wherever training programs put them."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.training.published import BUFFERS
from difftalk_pl.training.safe_unpickling import listed

log = logging.getLogger(__name__)

ENTRY = "state_dict"  # where Lightning puts it
PARALLEL = "module."  # before every name of a network that DataParallel or DistributedDataParallel wrapped


def tensors(content: Any) -> dict[str, Tensor]:
    """The state dict of a checkpoint: below `state_dict`, below the one entry that is one, or all there is.

    Floats become 32 bit floats, but for the buffers of the noise schedule, whose precision tells how exact they are.
    Raises UserError where there is no state dict, or tensors that no network here can hold.
    """
    state = _state_dict(content)
    if not isinstance(state, Mapping):
        raise UserError(f"holds {_article(type(state).__name__)}, not named tensors")
    if others := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise UserError(f"no state dict: {listed(others)} {'is' if len(others) == 1 else 'are'} no tensors")
    if not state:
        raise UserError("holds no tensors")
    if odd := [str(name) for name, value in state.items() if value.layout != torch.strided or value.is_quantized]:
        raise UserError(f"{len(odd)} tensors are sparse or quantised, and plain ones are needed: {listed(odd)}")
    named = _unwrapped({str(name): value for name, value in state.items()})
    return {name: value if name in BUFFERS else _single_precision(value) for name, value in named.items()}


def _state_dict(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    if ENTRY in content:
        return content[ENTRY]
    inside = [str(name) for name, value in content.items() if _is_state_dict(value)]
    if not inside or any(isinstance(value, Tensor) for value in content.values()):
        return content
    if len(inside) > 1:
        raise UserError(f"holds several state dicts, {listed(inside)}: save the one that is meant to a file of its own")
    log.info("read: its entry %r", inside[0])
    return next(value for value in content.values() if _is_state_dict(value))


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, Tensor) for one in value.values())


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(name.startswith(PARALLEL) for name in state):
        return state
    log.info("all names start with %r, as those of networks in parallel training do: taken off", PARALLEL)
    return {name[len(PARALLEL) :]: value for name, value in state.items()}


def _single_precision(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
