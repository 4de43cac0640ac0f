"""Loading tensors into a network: all of them or none, and by name what does not fit."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.stages.safe_unpickling import listed


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: Path, assign: bool = False) -> None:
    """Strict loading with an error that names what does not fit; `assign` takes the tensors themselves."""
    refuse_misfits(network, state, source)
    network.load_state_dict(dict(state), strict=True, assign=assign)


def refuse_misfits(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    if misfits := _misfits(network.state_dict(), state):
        raise UserError(f"{source}: weights do not fit the configured network: {misfits}")


def _misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What is missing, left over or of another shape, by name."""
    wrong = [
        f"{name} {tuple(state[name].shape)} in place of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    found = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": wrong,
    }
    return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in found.items() if names)
