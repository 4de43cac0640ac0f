"""Experiments with the smallest networks that are still the real ones, run through the real command line."""

import copy
import os
from pathlib import Path
from typing import Any

import wandb
import yaml

from difftalk_pl.cli import build_cli

SMALL: dict[str, Any] = {
    "autoencoder": {
        "model": {
            "class_path": "difftalk_pl.training.autoencoder.AutoencoderPretraining",
            "init_args": {
                "autoencoder": {
                    "block_out_channels": [8, 8, 16],
                    "layers_per_block": 1,
                    "codes": 32,
                    "norm_num_groups": 4,
                    "mid_block_attention": False,
                },
                "learning_rate": 1e-3,
                "adversarial": {"weight": 0.0},
            },
        },
        "data": {"contents": "frames"},
    },
    "diffusion": {
        "model": {
            "class_path": "difftalk_pl.training.diffusion.DiffusionTraining",
            "init_args": {
                "difftalk": {
                    "denoiser": {
                        "block_out_channels": [8, 16],
                        "layers_per_block": 1,
                        "attention_levels": [False, True],
                        "heads": [1, 2],
                        "norm_num_groups": 4,
                    },
                    "conditioning": {"audio_channels": 26, "landmark_scale": 1.0},
                },
                "optimisation": {"learning_rate": 1e-3},
                "sampler": {"name": "dpm++", "steps": 3},
            },
        },
        "data": {"contents": "latents", "val_frames": 4, "test_frames": 6},
    },
    "syncnet": {
        "model": {
            "class_path": "difftalk_pl.training.syncnet.SyncNetTraining",
            "init_args": {
                "syncnet": {"side": 64, "width": 0.05, "embedding": 16, "normalise": True},
                "optimisation": {"learning_rate": 1e-3},
                "data_label": "drawn faces",
            },
        },
        "data": {
            "contents": "sync",
            "sync": {"crop": "whole_frame", "side": 64, "stretch": 8, "largest_shift": 5},
        },
        "trainer": {
            "callbacks": [
                {
                    "class_path": "difftalk_pl.callbacks.checkpoints.LastCheckpoint",
                    "init_args": {"dirpath": "${run}/checkpoints"},
                }
            ]
        },
    },
}
CALLBACKS = "difftalk_pl.callbacks."
TRAINER = {
    "callbacks": [  # as in the defaults, with an evaluation that is quick
        {
            "class_path": f"{CALLBACKS}checkpoints.LastCheckpoint",
            "init_args": {"dirpath": "${run}/checkpoints", "every_n_train_steps": 500},
        },
        {"class_path": f"{CALLBACKS}evaluation.Evaluation", "init_args": {"lpips": None, "faces": False}},
        {"class_path": f"{CALLBACKS}media.EvaluationMedia"},
        {"class_path": f"{CALLBACKS}predictions.PredictionVideos"},
    ],
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": -1,
    "max_steps": 4,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
    "limit_val_batches": 1,
    "check_val_every_n_epoch": None,
    "val_check_interval": 2,
}


def merge(base: dict, over: dict) -> dict:
    """Deep merge of two configurations."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result


def own_environment(**more: str) -> dict[str, str]:
    """For a command in a process of its own, on one thread, that does not talk to the wandb of the tests' process: that
    one would take the run of a killed command for running."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return {**inherited, "OMP_NUM_THREADS": "1", **more}


class Runner:
    """Runs the real command line, in this process, on the small dataset."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data

    def config(self, stage: str, run: str, over: dict | None = None) -> Path:
        """Write an experiment's YAML."""
        base = {
            "run": str(self.folder / run),
            "trainer": TRAINER,
            "data": {
                "root": str(self.data),
                "val_clips": 0,
                "split": {"val": ["synthetic_002"], "test": ["synthetic_003"]},
                "loading": {"batch_size": 4, "eval_batch_size": 4, "workers": 0},
            },
        }
        whole = merge(merge(base, SMALL[stage]), over or {})
        added = whole["trainer"].pop("callbacks+", [])  # beside `callbacks` in one file it would take its place
        whole["trainer"]["callbacks"] += added
        path = self.folder / f"{run}.yaml"
        path.write_text(yaml.safe_dump(whole))
        return path

    def __call__(self, command: str, stage: str, run: str, over: dict | None = None):
        """The CLI after the command; `.trainer` and `.model` are there to look at."""
        try:
            return build_cli([command, "-c", str(self.config(stage, run, over))])
        finally:
            wandb.finish()

    def checkpoint(self, run: str) -> Path:
        return self.folder / run / "checkpoints" / "last.ckpt"
