"""Weights and numbers of the published networks."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def oracle_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weight `key` of an oracle's network: the oracles store a rule, and no weights."""
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    normal = random.standard_normal(shape).astype(np.float32)
    if key.endswith(".running_var"):
        normal = 1 + 0.1 * np.abs(normal)
    elif key.endswith(".running_mean"):
        normal = 0.1 * normal
    elif len(shape) >= 2:
        normal = normal / np.sqrt(np.prod(shape[1:]))
    else:
        normal = 0.1 * normal + (1 if key.endswith(".weight") else 0)
    return torch.from_numpy(np.asarray(normal, dtype=np.float32))


class Oracle:
    """Arrays of an oracle file as tensors, and the state dict that goes with them."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path)

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        shapes = json.loads(bytes(self._arrays["keys"]))
        return {key: oracle_tensor(key, tuple(shape)) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Oracle]:
    return lambda name: Oracle(GOLDEN / f"{name}.npz")


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Callable[[str], Oracle]:
    """The golden copy; what has none is looked for among the oracles."""

    def load(name: str) -> Oracle:
        path = GOLDEN / f"{name}.npz"
        return Oracle(path if path.exists() else request.getfixturevalue("oracles") / path.name)

    return load


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def count_parameters() -> Callable[[Any], int]:
    return parameters
