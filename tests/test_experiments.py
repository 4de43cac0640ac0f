"""Every shipped experiment parses; the full-size ones have the published sizes."""

from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from difftalk_pl.cli import EXPERIMENTS, DiffTalkCLI, build_cli
from difftalk_pl.models.autoencoder import Autoencoder
from difftalk_pl.models.difftalk import DiffTalk

WHOLE = sorted(path for path in EXPERIMENTS.rglob("*.yaml") if path.name != "defaults.yaml")
OVERRIDES = {"scratch": ".."}  # folders of second -c files, and where their first lies


def arguments(path: Path) -> list[str]:
    below = OVERRIDES.get(path.parent.name)
    return ["-c", str(path)] if below is None else ["-c", str(path.parent / below / path.name), "-c", str(path)]


@pytest.fixture
def parsed(monkeypatch):
    """Parses an experiment as `fit` does, and builds nothing."""
    monkeypatch.setattr(DiffTalkCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(DiffTalkCLI, "_run_subcommand", lambda self, name: None)
    monkeypatch.setattr(DiffTalkCLI, "before_instantiate_classes", lambda self: None)

    def parse(command: str, *words: str) -> Namespace:
        return build_cli([command, *words]).config[command]

    return parse


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_every_experiment_parses_for_every_command(parsed, path):
    for command in ("fit", "test"):
        config = parsed(command, *arguments(path))
        assert config.run.startswith("runs/")
        assert config.trainer.default_root_dir == config.run
        folders = [callback.get("init_args", {}).get("dirpath") for callback in config.trainer.callbacks]
        assert f"{config.run}/checkpoints" in map(str, folders)
        assert config.trainer.logger[0].init_args.offline and config.trainer.logger[0].init_args.save_dir == config.run


def test_a_misspelt_key_fails_when_it_is_parsed(parsed, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("fit", "-c", str(EXPERIMENTS / "demo" / "diffusion.yaml"), "--model.init_args.learning_rat", "1")
    assert stop.value.code == 2 and "learning_rat" in capsys.readouterr().err


def test_a_second_file_holds_only_what_differs(parsed):
    demo, scratch = (
        parsed("fit", *arguments(EXPERIMENTS / "demo" / folder / "autoencoder.yaml")) for folder in ("", "scratch")
    )
    assert demo.model.init_args.autoencoder == scratch.model.init_args.autoencoder
    assert demo.model.init_args.init_from is not None and scratch.model.init_args.init_from is None


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_presets_have_the_published_sizes(parsed):
    with torch.device("meta"):
        first = parsed("fit", "-c", str(EXPERIMENTS / "autoencoder" / "vq_f4_256.yaml")).model.init_args
        assert count(Autoencoder(first.autoencoder)) == 55_322_782
        second = parsed("fit", "-c", str(EXPERIMENTS / "diffusion" / "released_256.yaml")).model.init_args
        assert count(DiffTalk(second.difftalk).denoiser) == 530_152_963
    assert second.schedule.steps == 1000 and second.schedule.kind == "scaled_linear"
    assert (second.schedule.start, second.schedule.end) == (0.0015, 0.0195)
