"""Stops a training before a number that is not finite reaches the weights, and says where it came from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.ranks import anywhere, gathered_objects


@dataclass
class StepGuard:
    """Watches what a step is made of; `check`, after the backward passes and before the optimizers, decides.

    All processes decide together, so none waits for another that has stopped. A check waits for the device once and
    reduces one number.

    Args:
        remedies: what a user can try, a part of the message.
    """

    remedies: str
    _terms: list[tuple[str, Tensor]] = field(default_factory=list, repr=False)
    _batches: list[Mapping[str, Any]] = field(default_factory=list, repr=False)

    def watch(self, batch: Mapping[str, Any], terms: Mapping[str, Tensor]) -> None:
        """Terms of a loss, each one number, and the batch they are of. An accumulated step has several."""
        self._batches.append(batch)
        self._terms += [(name, term.detach()) for name, term in terms.items()]

    def check(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Forget what was watched, and raise UserError in all processes if any of it or of `terms` is not finite."""
        watched, batches = [*self._terms, *((name, term.detach()) for name, term in terms.items())], self._batches
        self._terms, self._batches = [], []
        if not watched:
            return
        finite = torch.stack([term.float() for _, term in watched]).isfinite()
        if not anywhere(~finite.all()):
            return
        bad = [f"{name} is {float(term)}" for (name, term), good in zip(watched, finite.tolist()) if not good]
        mine = f"{', '.join(bad)} with {'; '.join(map(_describe, batches))}" if bad else ""
        source = not all(finite.tolist()[: len(watched) - len(terms)])  # gradients are those of all processes
        reports = gathered_objects((source, mine))
        found = [report for own, report in reports if own] or [report for _, report in reports if report]
        raise UserError(
            f"step {step}: {'; '.join(found)}. Stopped before the optimizer's step: the weights are those of step "
            f"{step}, and last.ckpt can go on from there. {self.remedies}"
        )


def gradient_norm(parameters: Iterator[nn.Parameter]) -> Tensor:
    """The norm of all gradients, (); 0 where there are none. Does not wait for the device."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


@contextmanager
def buffers_restored(module: nn.Module) -> Iterator[None]:
    """A step that is broken off leaves no trace in running statistics, which a forward pass already changes."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise


def _describe(batch: Mapping[str, Any]) -> str:
    """clip_1 frames 4, 8, clip_2 frame 3; and inputs that were not finite to begin with."""
    frames: dict[str, list[str]] = {}
    for clip, frame in zip(batch["clip"], torch.as_tensor(batch["frame"]).tolist()):
        frames.setdefault(clip, []).append(str(frame))
    text = ", ".join(f"{clip} frame{'s' * (len(each) > 1)} {', '.join(each)}" for clip, each in frames.items())
    spoilt = [name for name, value in batch.items() if isinstance(value, Tensor) and not value.isfinite().all()]
    return f"{text} (not finite in the data: {', '.join(spoilt)})" if spoilt else text
