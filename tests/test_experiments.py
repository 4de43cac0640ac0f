"""Every shipped experiment parses; the full-size ones have the published sizes."""

import re
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from difftalk_pl.cli import EXPERIMENTS, DiffTalkCLI, build_cli
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.codebook import Codebook
from difftalk_pl.training.weights import from_dict

EVERY = sorted(path for path in EXPERIMENTS.rglob("*.yaml") if path.name != "defaults.yaml")
PUBLISHED = {  # parameters, and pixels a side of a latent cell
    "autoencoder/vq_f4": (55_322_782, 4),
    "autoencoder/512": (62_408_862, 8),
    "autoencoder/noattn": (53_219_486, 4),
}


def arguments(path: Path) -> list[str]:
    """The -c options of an experiment: an override names its base in its first line, "# Over BASE.yaml"."""
    base = re.match(r"# Over (\S+\.yaml)", path.read_text(encoding="utf-8"))
    below = [] if base is None else ["-c", str((path.parent / base[1]).resolve(strict=True))]
    return [*below, "-c", str(path)]


@pytest.fixture
def parsed(monkeypatch):
    """Parse an experiment as `fit` does, and build nothing."""
    for step in ("instantiate_classes", "before_instantiate_classes"):
        monkeypatch.setattr(DiffTalkCLI, step, lambda self: None)
    monkeypatch.setattr(DiffTalkCLI, "_run_subcommand", lambda self, name: None)

    def parse(name: str, *words: str, command: str = "fit") -> Namespace:
        return build_cli([command, *arguments(EXPERIMENTS / f"{name}.yaml"), *words]).config[command]

    return parse


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_every_experiment_parses_and_has_a_folder_of_its_own(parsed, path):
    config = parsed(str(path.relative_to(EXPERIMENTS).with_suffix("")), command="test")
    assert config.run.startswith("runs/") and path.read_text(encoding="utf-8").count(f"\nrun: {config.run}\n") == 1
    assert config.trainer.default_root_dir == config.run
    folders = [callback.get("init_args", {}).get("dirpath") for callback in config.trainer.callbacks]
    assert f"{config.run}/checkpoints" in map(str, folders)
    assert config.trainer.logger[0].init_args.offline and config.trainer.logger[0].init_args.save_dir == config.run


def test_no_two_experiments_share_a_folder():
    runs = [found for path in EVERY for found in re.findall(r"^run: (\S+)", path.read_text(encoding="utf-8"), re.M)]
    assert len(set(runs)) == len(runs) == len(EVERY)


def test_a_misspelt_key_fails_when_it_is_parsed(parsed, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("demo/diffusion", "--model.init_args.learning_rat", "1")
    assert stop.value.code == 2 and "learning_rat" in capsys.readouterr().err


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_first_stages_have_the_published_sizes_and_losses(parsed, name):
    parameters, factor = PUBLISHED[name]
    config = parsed(name)
    first = config.model.init_args
    with torch.device("meta"):
        assert count(Autoencoder(first.autoencoder)) == parameters
    sizes = from_dict(AutoencoderConfig, vars(first.autoencoder))
    assert sizes.factor == factor and sizes.latent_channels == 3
    assert first.learning_rate == pytest.approx(4.5e-6 * config.trainer.devices * config.data.loading.batch_size)
    assert tuple(first.betas) == (0.5, 0.9) and first.adversarial.weight == 0.75 and first.codebook.weight == 1
    assert Codebook(**first.codebook.as_dict()) == Codebook(), "the published way is the default"
    assert (first.perceptual.network, first.perceptual.weight) == ("vgg", 1.0)


def test_the_denoiser_has_the_published_size(parsed):
    second = parsed("diffusion/released").model.init_args
    with torch.device("meta"):
        assert count(DiffTalk(from_dict(DiffTalkConfig, second.difftalk.as_dict())).denoiser) == 530_152_963
    assert second.schedule.steps == 1000 and second.schedule.kind == "scaled_linear"
    assert (second.schedule.start, second.schedule.end) == (0.0015, 0.0195)


def flat(config: Namespace) -> dict[str, str]:
    chosen = Namespace(**{key: value for key, value in vars(config.clone()).items() if key in ("run", "model", "data")})
    return {key.removeprefix("model.init_args."): str(value) for key, value in vars(chosen.as_flat()).items()}


def differences(one: Namespace, other: Namespace) -> set[str]:
    first, second = flat(one), flat(other)
    return {key for key in first | second if first.get(key) != second.get(key)}


def test_512_px_differs_in_paths_alone(parsed):
    assert differences(parsed("diffusion/paper"), parsed("diffusion/512")) == {"run", "data.root", "autoencoder"}


def test_paper_and_released_differ_where_the_paper_differs(parsed):
    assert differences(parsed("diffusion/released"), parsed("diffusion/paper")) == {
        "run",
        "data.mask",
        "data.smoothing",
        "difftalk.conditioning.smoothing",
        "schedule.steps",
        "schedule.start",
        "schedule.end",
        "sampler.margin",
    }


def test_the_200_steps_of_the_paper_end_in_the_released_noise(parsed):
    schedules = [parsed(f"diffusion/{name}").model.init_args.schedule for name in ("released", "paper")]
    ends = [NoiseSchedule(**vars(schedule)).alphas_cumprod[-1].sqrt().item() for schedule in schedules]
    assert ends == pytest.approx([0.0119, 0.0106], abs=2e-4)


def test_settings_that_data_and_model_share_are_linked(parsed):
    config = parsed("diffusion/paper", "--model.init_args.sampler.reference", "progressive:widest")
    assert list(config.data.smoothing) == [8, 8] and config.data.audio_channels == 29
    assert config.data.reference == "progressive:widest"
