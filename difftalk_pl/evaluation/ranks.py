"""What one process of several needs of the others. Alone, everything is returned as it came.

All processes must call these at the same places: each is a collective.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes; bit by bit the same in each."""
    if not alone():
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """The tensors of all processes one after another along the first axis; equally long in each."""
    if alone():
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor)
    return torch.cat(parts)


def gathered_objects(value: T) -> list[T]:
    """A small plain value of every process."""
    if alone():
        return [value]
    values: list[T] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def same_as_first(tensors: Iterable[Tensor]) -> None:
    """In place, the values of the first process."""
    for tensor in () if alone() else tensors:
        value = tensor.contiguous()  # channels_last is not
        distributed.broadcast(value, 0)
        tensor.copy_(value)


def anywhere(flag: Tensor) -> bool:
    """Whether a flag, (), is set in any process. Waits for the device."""
    return bool(summed(flag.float()) > 0)
