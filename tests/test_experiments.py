"""Every shipped experiment parses; the full-size ones have the published sizes."""

from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from difftalk_pl.cli import EXPERIMENTS, DiffTalkCLI, build_cli
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.codebook import Codebook
from difftalk_pl.models.difftalk import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule

WHOLE = sorted(path for path in EXPERIMENTS.rglob("*.yaml") if path.name != "defaults.yaml")
OVERRIDES = {"scratch": "../{name}", "ablations": "../demo/diffusion.yaml"}  # second -c files, and their first


def arguments(path: Path) -> list[str]:
    below = OVERRIDES.get(path.parent.name)
    if below is None:
        return ["-c", str(path)]
    return ["-c", str(path.parent / below.format(name=path.name)), "-c", str(path)]


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


@pytest.mark.parametrize(
    "name, parameters, factor",
    [("vq_f4_256", 55_322_782, 4), ("vq_f8_512", 62_408_862, 8), ("vq_f4_noattn", 53_219_486, 4)],
)
def test_the_first_stages_have_their_sizes_and_the_published_losses(parsed, name, parameters, factor):
    config = parsed("fit", "-c", str(EXPERIMENTS / "autoencoder" / f"{name}.yaml"))
    first = config.model.init_args
    with torch.device("meta"):
        assert count(Autoencoder(first.autoencoder)) == parameters
    sizes = AutoencoderConfig.from_dict(vars(first.autoencoder))
    assert sizes.factor == factor and sizes.latent_channels == 3
    images = config.trainer.devices * config.data.loading.batch_size
    assert first.learning_rate == pytest.approx(4.5e-6 * images)
    assert tuple(first.betas) == (0.5, 0.9) and first.adversarial.weight == 0.75 and first.codebook.weight == 1
    assert Codebook(**first.codebook.as_dict()) == Codebook(), "the published way is the default"


def test_the_presets_have_the_published_sizes(parsed):
    with torch.device("meta"):
        first = parsed("fit", "-c", str(EXPERIMENTS / "autoencoder" / "vq_f4_256.yaml")).model.init_args
        assert count(Autoencoder(first.autoencoder)) == 55_322_782
        second = parsed("fit", "-c", str(EXPERIMENTS / "diffusion" / "released_256.yaml")).model.init_args
        assert count(DiffTalk(DiffTalkConfig.from_dict(second.difftalk.as_dict())).denoiser) == 530_152_963
    assert second.schedule.steps == 1000 and second.schedule.kind == "scaled_linear"
    assert (second.schedule.start, second.schedule.end) == (0.0015, 0.0195)


def values(config: Namespace) -> dict:
    """A stage 2 experiment as flat keys."""
    config = {key: value for key, value in vars(config.clone()).items() if key in ("run", "model", "data")}
    flat = Namespace(**config).as_flat()
    return {key: str(value) for key, value in vars(flat).items()}


def differences(parsed, one: str, other: str) -> set[str]:
    first, second = (
        values(parsed("fit", "-c", str(EXPERIMENTS / "diffusion" / f"{name}.yaml"))) for name in (one, other)
    )
    return {key for key in first | second if first.get(key) != second.get(key)}


PLACES = {"run", "data.root", "model.init_args.autoencoder"}


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_the_presets_for_512_differ_in_places_alone(parsed, preset):
    assert differences(parsed, f"{preset}_256", f"{preset}_512") == PLACES


def test_paper_and_released_differ_where_the_paper_differs(parsed):
    changed = differences(parsed, "released_256", "paper_256")
    assert {key.removeprefix("model.init_args.") for key in changed} == {
        "run",
        "data.mask",
        "data.smoothing",
        "difftalk.conditioning.smoothing",
        "schedule.steps",
        "schedule.start",
        "schedule.end",
        "sampler.margin",
    }


def test_the_papers_200_steps_end_in_the_released_noise(parsed):
    schedules = [
        parsed("fit", "-c", str(EXPERIMENTS / "diffusion" / f"{name}_256.yaml")).model.init_args.schedule
        for name in ("released", "paper")
    ]
    ends = [NoiseSchedule(**vars(schedule)).alphas_cumprod[-1].sqrt().item() for schedule in schedules]
    assert ends == pytest.approx([0.0119, 0.0106], abs=2e-4)


def test_features_channels_and_smoothing_of_a_preset_agree(parsed):
    """What the stage would refuse before its first step."""
    channels = {"mfcc": 26, "deepspeech": 29}
    for path in sorted((EXPERIMENTS / "diffusion").glob("*.yaml")):
        config = parsed("fit", "-c", str(path))
        conditioning = config.model.init_args.difftalk.conditioning
        assert conditioning.audio_channels == channels[config.data.features], path.name
        assert list(conditioning.smoothing) == list(config.data.smoothing), path.name


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "autoencoder").glob("vq_*.yaml")), ids=lambda path: path.name)
def test_first_stages_at_published_sizes_have_the_published_perceptual_loss(parsed, path):
    perceptual = parsed("fit", "-c", str(path)).model.init_args.perceptual
    assert (perceptual.network, perceptual.weight, perceptual.weights) == ("vgg", 1.0, None)
