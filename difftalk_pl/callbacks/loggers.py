"""A W&B logger that knows the run's folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

if TYPE_CHECKING:
    from wandb import Run
    from wandb.sdk.lib import RunDisabled

ID_FILE = "wandb_id.txt"


class RunWandbLogger(WandbLogger):
    """One run of W&B for one run folder, whose id is kept in SAVE_DIR/wandb_id.txt. `id`, `version` and the variable
    WANDB_RUN_ID, which sweeps set, come first. Takes WandbLogger's arguments."""

    resumed = False  # whether the folder's run existed before; known when it is opened

    @property
    @rank_zero_experiment
    def experiment(self) -> Union["Run", "RunDisabled"]:
        """Open the run when it is first asked for, in the first process alone."""
        if self._experiment is not None:
            return self._experiment
        file = Path(self._wandb_init["dir"]) / ID_FILE
        known = file.read_text(encoding="utf-8").strip() if file.exists() else None
        if not os.environ.get("WANDB_RUN_ID"):
            self._wandb_init["id"] = self._wandb_init["id"] or known
        opened = super().experiment
        self.resumed = opened.id == known
        if not self.resumed and not opened.disabled:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{opened.id}\n", encoding="utf-8")
        return opened
