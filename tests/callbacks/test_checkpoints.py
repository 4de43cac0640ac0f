"""A run that is interrupted anywhere goes on as if it had not been."""

import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, Dataset

from difftalk_pl.callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from difftalk_pl.data.datamodule import HDTFDataModule, Loading

BATCHES = 6  # of an epoch


class Numbers(Dataset):
    """Draws instead of windows."""

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, draw):
        return torch.tensor(draw)


class Data(HDTFDataModule):
    """The real training loader over numbers."""

    def __init__(self, workers):
        L.LightningDataModule.__init__(self)
        self.loading, self.seed, self.windows = Loading(2, 2, workers), 0, {"train": Numbers()}

    def setup(self, stage):
        pass

    def val_dataloader(self):
        return DataLoader(range(4), batch_size=2)

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class Recorder(L.LightningModule):
    """Records what it sees; `accident` happens in the batch after `at` steps, or in validation."""

    def __init__(self, at=None, accident=None, in_validation=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.at, self.accident, self.in_validation, self.seen = at, accident, in_validation, []

    def training_step(self, batch, batch_idx):
        if not self.in_validation and self.global_step == self.at:
            self.accident()
        self.seen.append(batch.tolist())
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        if self.in_validation and self.global_step == self.at:
            self.accident()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


def error():
    raise RuntimeError("accident")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def fit(folder, module, steps=20, workers=0, callbacks=(), **options):
    trainer = L.Trainer(
        default_root_dir=folder,
        callbacks=[*callbacks, LastCheckpoint(folder, every_n_train_steps=1000)],
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        **{"limit_val_batches": 0} | options,
    )
    last = folder / "last.ckpt"
    trainer.fit(module, datamodule=Data(workers), ckpt_path=str(last) if last.exists() else None, weights_only=True)
    return module.seen


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_prolonged_sees_what_a_longer_one_sees(tmp_path, workers):
    whole = fit(tmp_path / "whole", Recorder())
    assert fit(tmp_path, Recorder(), 4, workers) + fit(tmp_path, Recorder(), workers=workers) == whole


@pytest.mark.parametrize("accident, raised", [(error, RuntimeError), (terminate, SIGTERMException)])
@pytest.mark.parametrize("at", [3, BATCHES])
def test_no_batch_is_lost_or_seen_twice_after_errors_and_sigterm(tmp_path, accident, raised, at):
    whole, broken = fit(tmp_path / "whole", Recorder()), Recorder(at, accident)
    with pytest.raises(raised):
        fit(tmp_path, broken)
    assert broken.seen + fit(tmp_path, Recorder()) == whole


def test_an_error_in_validation_saves_averaged_and_raw_weights_and_loses_no_batch(tmp_path):
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    whole, broken = fit(tmp_path / "whole", Recorder(), **options), Recorder(4, error, True)
    with pytest.raises(RuntimeError):
        fit(tmp_path / "run", broken, callbacks=[EMAWeightAveraging(decay=0.5)], **options)
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert float(checkpoint["current_model_state"]["weight"]) == -4, "the sum of four steps of 1"
    assert -4 < float(checkpoint["state_dict"]["weight"]) < -1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.ckpt"], "no temporary file"
    rest = fit(tmp_path / "run", Recorder(), callbacks=[EMAWeightAveraging(decay=0.5)], **options)
    assert broken.seen + rest == whole
