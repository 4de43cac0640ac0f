"""Samplers by what they are for. docs/sampling.md has the sweep that they come from, and its command."""

from dataclasses import replace
from typing import Literal

from difftalk_pl.generation.sampler import SamplerConfig

Preset = Literal["fast", "quality"]
PRESETS: dict[str, SamplerConfig] = {
    "quality": SamplerConfig(name="ddim", steps=200, reference="widest"),  # as many steps as the paper takes
    "fast": SamplerConfig(name="dpm++", steps=4, reference="widest"),
}


def choose_sampler(preset: Preset = "fast", **changes: object) -> SamplerConfig:
    """A preset, changed where something else is given; None leaves it as it is."""
    return replace(PRESETS[preset], **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]
