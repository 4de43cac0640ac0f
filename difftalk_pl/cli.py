"""fit, validate, test and predict: LightningCLI with this project's run folders and defaults."""

import logging
import sys
import warnings
from pathlib import Path

import jsonargparse
import lightning as L
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from difftalk_pl.data.datamodule import HDTFDataModule
from difftalk_pl.errors import UserError
from difftalk_pl.logs import log_to_terminal

log = logging.getLogger(__name__)

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
IRRELEVANT = (  # warnings of Lightning and torch about what is meant to be so
    ".*does not have many workers.*",
    ".*WeightAveraging callback.*",
    "You're resuming from a checkpoint that ended before the epoch ended.*",  # the sampler knows where it was
    "LightningCLI's args parameter is intended to run from within Python.*",
    "Using ModelCheckpoint with manual optimization.*",
    ".*isinstance.treespec.*",
    "Checkpoint directory .* exists and is not empty.*",
    "Experiment logs directory .* exists and is not empty.*",
)
EPILOG = """An experiment is a YAML; a second -c overrides only what differs:
python -m difftalk_pl fit -c experiments/demo/diffusion.yaml -c mine.yaml --trainer.max_steps 100.
fit goes on from RUN/checkpoints/last.ckpt where there is one."""


class RunConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder, and the configuration to every logger."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Not yet: a run that is refused must not overwrite the configuration of the run in the folder."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(self.config.run)
        self.parser.save(self.config, folder / "config.yaml", skip_none=False, overwrite=True, multifile=False)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class DiffTalkCLI(LightningCLI):
    """One folder for a run: `--run`. Everything a run writes lies in it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, required=True, help="the run's folder, such as runs/demo/diffusion")

    def _parse_ckpt_path(self) -> None:
        """A checkpoint's hyperparameters must not override the YAML and the command line."""

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

    def _last_checkpoint(self, path: Path) -> str | None:
        if path.exists():
            log.info("%s: going on from %s", self.subcommand, path)
            return str(path)
        if self.subcommand != "fit":
            raise UserError(f"{path}: no checkpoint of this run; fit first, or give --ckpt_path FILE (or null)")
        return None


def run_lightning(arguments: list[str]) -> None:
    """Parse and run one of LightningCLI's subcommands. Raises UserError where defaults or checkpoints are missing."""
    log_to_terminal()
    for pattern in IRRELEVANT:
        warnings.filterwarnings("ignore", pattern)
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
    return DiffTalkCLI(
        L.LightningModule,
        HDTFDataModule,
        subclass_mode_model=True,
        save_config_callback=RunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        parser_kwargs={
            "parser_mode": "omegaconf+",
            **dict.fromkeys(("fit", "validate", "test", "predict"), settings),
        }
        if run
        else {"parser_mode": "omegaconf+", **settings},
        args=arguments,
        run=run,
    )
