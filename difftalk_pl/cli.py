"""fit, validate, test and predict: LightningCLI with this project's run folders and defaults."""

import atexit
import logging
import signal
import sys
from pathlib import Path

import jsonargparse
import lightning as L
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from difftalk_pl import __version__
from difftalk_pl.data.datamodule import HDTFDataModule
from difftalk_pl.errors import UserError
from difftalk_pl.logs import log_to_terminal
from difftalk_pl.revision import revision

log = logging.getLogger(__name__)

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
MODEL_TO_DATA = {  # settings that the data must share with the model: arguments of the model -> of the DataModule
    "difftalk.conditioning.audio_channels": "audio_channels",
    "difftalk.conditioning.smoothing": "smoothing",
    "sampler.reference": "reference",
}
EPILOG = """An experiment is a YAML; a second -c overrides only what differs:
python -m difftalk_pl fit -c experiments/demo/diffusion.yaml -c mine.yaml --trainer.max_steps 100.
fit goes on from RUN/checkpoints/last.ckpt where there is one."""


class RunConfig(SaveConfigCallback):
    """Write config.yaml into the run's folder, and the configuration with the code's revision to every logger."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save nothing in setup: a run that is refused must not overwrite the configuration in the folder."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            first = f"# difftalk_pl {__version__}, git {revision() or 'unknown'}\n"
            self.file.write_text(first + self.parser.dump(self.config, skip_none=False), encoding="utf-8")
            self._log(trainer.loggers)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.on_test_start(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log to every logger but a W&B run that a fit has begun: that one keeps the fit's configuration."""
        if trainer.is_global_zero:
            resumed = [logger for logger in trainer.loggers if self.file.exists() and getattr(logger, "resumed", False)]
            self._log([logger for logger in trainer.loggers if logger not in resumed])

    @property
    def file(self) -> Path:
        return Path(self.config.run) / "config.yaml"

    def _log(self, loggers: list[Logger]) -> None:
        for logger in loggers:
            logger.log_hyperparams({**self.config.as_dict(), "git": revision()})


class DiffTalkCLI(LightningCLI):
    """LightningCLI with one folder for a run, `--run`: everything that a run writes lies in it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, required=True, help="the run's folder, such as runs/demo/diffusion")
        for source, target in MODEL_TO_DATA.items():
            parser.link_arguments(f"model.init_args.{source}", f"data.{target}")
        parser.link_arguments("model", "data.codec", compute_fn=_codec_hash, apply_on="instantiate")
        parser.link_arguments("model", "data.sequential", compute_fn=_is_sequential, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Do not let a checkpoint's hyperparameters override the YAML and the command line."""

    def instantiate_classes(self) -> None:
        """jsonargparse wraps what a class raises about its arguments into pages of types: the cause is enough."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        Path(config.run).mkdir(parents=True, exist_ok=True)
        torch.set_float32_matmul_precision("high")
        if config.ckpt_path == "last":
            config.ckpt_path = self._last_checkpoint(Path(config.run) / "checkpoints" / "last.ckpt")

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            kill = getattr(self.trainer.strategy.launcher, "kill", None)
            if kill is not None:  # Lightning kills all ranks when a child fails, and none when the first one does
                atexit.register(kill, signal.SIGKILL)  # after the error is printed: Lightning then ends this process
            raise

    def _last_checkpoint(self, path: Path) -> str | None:
        if path.exists():
            log.info("%s: going on from %s", self.subcommand, path)
            return str(path)
        if self.subcommand != "fit":
            raise UserError(f"{path}: no checkpoint of this run; fit first, or give --ckpt_path FILE (or null)")
        return None


def _codec_hash(model: L.LightningModule) -> str | None:
    """Return the hash of the frozen autoencoder whose cached latents a model reads; None for stages without one."""
    return getattr(model, "codec_hash", None)


def _is_sequential(model: L.LightningModule) -> bool:
    """Return whether a model generates each frame from the one before it."""
    return bool(getattr(getattr(model, "sampler", None), "sequential", False))


def run_lightning(arguments: list[str]) -> None:
    """Parse and run one of LightningCLI's subcommands. Raises UserError where defaults or checkpoints are missing."""
    log_to_terminal()
    try:
        build_cli(None if arguments == sys.argv[1:] else arguments)
    except SIGTERMException as stop:  # a SystemExit without a code: it would end as if all were done
        raise UserError("stopped by SIGTERM; the same command goes on from the run's checkpoints/last.ckpt") from stop


def build_cli(arguments: list[str] | None, run: bool = True) -> DiffTalkCLI:
    """The CLI with experiments/defaults.yaml under every experiment; `run=False` only parses and instantiates."""
    defaults = EXPERIMENTS / "defaults.yaml"
    if not defaults.exists():
        raise UserError(f"{defaults}: missing; install the project from its checkout with pip install -e .")
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    settings = {"default_config_files": [str(defaults)], "epilog": EPILOG}
    common = {"parser_mode": "omegaconf+", "allow_abbrev": False}
    return DiffTalkCLI(
        L.LightningModule,
        HDTFDataModule,
        subclass_mode_model=True,
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        parser_kwargs={
            **common,
            **dict.fromkeys(("fit", "validate", "test", "predict"), settings),
        }
        if run
        else {**common, **settings},
        args=arguments,
        run=run,
    )
