"""Every stage 2 preset at a small size, from its first step through validation to a test: only sizes are changed."""

import pytest
import wandb
import yaml

from difftalk_pl.cli import EXPERIMENTS, build_cli
from tests.runner import SMALL, TRAINER, merge

PRESETS = sorted(path.stem for path in (EXPERIMENTS / "diffusion").glob("*.yaml"))


def over(folder, data, codec) -> dict:
    """What a small machine changes. Latents come from pictures, so that any mask will do."""
    small = SMALL["diffusion"]["model"]["init_args"]
    conditioning = {"audio_channels": 26}
    return {
        "run": str(folder / "run"),
        "model": {
            "init_args": {
                "autoencoder": str(codec),
                "init_from": None,
                "difftalk": {"denoiser": small["difftalk"]["denoiser"], "conditioning": conditioning},
                "optimisation": {"warmup_steps": 0},
                "sampler": {"steps": 2},
            }
        },
        "data": {
            "root": str(data),
            "contents": "images",
            "features": "mfcc",
            "split": {"val": ["synthetic_002"], "test": ["synthetic_003"]},
            "test_frames": 3,
            "val_frames": 3,
            "loading": {"batch_size": 2, "eval_batch_size": 3, "workers": 0},
        },
        "trainer": merge(TRAINER, {"max_steps": 2, "precision": "32-true"}),
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_validates_and_is_tested(tmp_path, prepared, codec, preset, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "over.yaml").write_text(yaml.safe_dump(over(tmp_path, prepared, codec)))
    files = ["-c", str(EXPERIMENTS / "diffusion" / f"{preset}.yaml"), "-c", str(tmp_path / "over.yaml")]
    try:
        trained = build_cli(["fit", *files])
        assert trained.trainer.global_step == 2
        assert list((tmp_path / "run" / "samples").glob("*.png"))
        build_cli(["test", *files])
        assert (tmp_path / "run" / "results.json").exists()
    finally:
        wandb.finish()
