"""The device that a command computes on."""

import torch

from difftalk_pl.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the accelerator if there is one. Raises UserError if it is not usable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not usable here ({str(error).splitlines()[0]})") from error
