"""Stage 1 through the real command line."""

import csv
import json

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.training.autoencoder import Adversarial, AutoencoderPretraining
from difftalk_pl.training.codebook import Codebook
from difftalk_pl.training.pretrained import Perceptual, PerceptualDistance
from difftalk_pl.training.weights import read_weights
from tests.backbones import write_backbone

GAN = {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}}


def logged(run, key):
    """All values of a key in the newest metrics.csv of a run."""
    newest = sorted((run / "metrics").glob("version_*"))[-1] / "metrics.csv"
    with newest.open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def over(steps, **model):
    return {"model": {"init_args": model}, "trainer": {"max_steps": steps, "limit_val_batches": 0}}


def state(runner, run):
    return torch.load(runner.checkpoint(run), weights_only=True)["state_dict"]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_is_in_one_folder_and_its_loss_falls(runner):
    cli = runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 12}})
    run = runner.folder / "vq"
    assert {"config.yaml", "checkpoints", "metrics", "wandb"} <= {path.name for path in run.iterdir()}
    losses = logged(run, "train/l1")
    assert len(losses) == 12 and sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert cli.trainer.global_step == 12 and logged(run, "val/l1")


def test_two_optimizers_count_one_step_a_batch_and_the_discriminator_starts_later(runner):
    adversarial = {"adversarial": {"weight": 0.75, "start": 3, "filters": 8, "layers": 1}}
    cli = runner("fit", "autoencoder", "gan", over(5, **adversarial))
    assert cli.trainer.global_step == int(cli.model.batches) == 5
    assert len(logged(runner.folder / "gan", "train/discriminator_loss")) == 2
    assert all(value > 0 for value in logged(runner.folder / "gan", "train/adaptive_weight"))


def test_a_resumed_run_equals_an_uninterrupted_one(runner):
    model = {**GAN, "codebook": {"warmup": 2, "vectors": 512, "revive_after": 2}}
    runner("fit", "autoencoder", "whole", over(6, **model))
    runner("fit", "autoencoder", "parts", over(3, **model))
    runner("fit", "autoencoder", "parts", over(6, **model))
    assert_equal(state(runner, "whole"), state(runner, "parts"))


def test_the_configured_rate_and_betas_hold_on_resume(runner):
    runner("fit", "autoencoder", "rates", over(1))
    cli = runner("fit", "autoencoder", "rates", over(2, learning_rate=1e-5, betas=[0.9, 0.99], warmup_steps=4))
    (group,) = cli.trainer.optimizers[0].param_groups
    assert (group["lr"], group["betas"]) == (pytest.approx(1e-5 * 2 / 4), (0.9, 0.99))


def test_warm_up_and_kmeans_make_a_codebook_that_fits(runner):
    def coarseness(warmup):
        """Share of the latents' variance that quantisation loses, and codes in use, after 12 batches."""
        cli = runner("fit", "autoencoder", f"warm{warmup}", over(12, codebook={"warmup": warmup}))
        network = cli.model.autoencoder.eval()
        image = torch.cat([batch["image"] for batch, _ in zip(cli.datamodule.train_dataloader(), range(2))])
        with torch.no_grad():
            z = network.encode(image)
            quantised = network.quantise(z)
        return float((quantised.z_q - z).square().mean() / z.var()), len(quantised.indices.unique()), z

    lost, used, z = coarseness(12)
    assert used > 20 and lost < 0.2
    assert 0.5 < z.std() < 2, "latents of about unit variance"
    assert coarseness(0)[0] > 2 * lost
    with pytest.raises(UserError, match=r"codebook\.vectors 31: k-means needs more for 32 codes"):
        runner("fit", "autoencoder", "few", over(1, codebook={"warmup": 4, "vectors": 31}))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(runner, monkeypatch):
    original = AutoencoderPretraining.autoencoder_loss

    def spoilt(self, image, output):
        return original(self, image * (torch.nan if self.global_step == 3 else 1), output)

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderPretraining, "autoencoder_loss", spoilt)
        with pytest.raises(UserError, match=r"^step 3: l1 is nan, .* with clips synthetic_00\d.*last\.ckpt can go on"):
            runner("fit", "autoencoder", "nan", over(5))
    assert all(value.isfinite().all() for value in state(runner, "nan").values())
    for run in ("nan", "whole"):
        runner("fit", "autoencoder", run, over(5))
    assert_equal(state(runner, "nan"), state(runner, "whole"))


def test_precisions_that_lose_small_steps_are_refused(runner):
    experiment = over(1)
    experiment["trainer"]["precision"] = "bf16-true"
    with pytest.raises(UserError, match="bf16-true: stage 1 needs bf16-mixed or 32-true"):
        runner("fit", "autoencoder", "half", experiment)


def test_the_perceptual_loss_is_the_published_mean_over_pixels(tmp_path):
    """LDM adds each picture's distance to its pixels' absolute errors and takes the mean of all."""
    weights = write_backbone(tmp_path / "drawn.pth")
    torch.manual_seed(0)
    module = AutoencoderPretraining(
        AutoencoderConfig((8, 16), layers_per_block=1, codes=8, norm_num_groups=4),
        perceptual=Perceptual("squeeze", weights, 0.7),
        codebook=Codebook(warmup=1),
        adversarial=Adversarial(weight=0.0),
    )
    module.distance = PerceptualDistance("squeeze", weights, "x")
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    output = module.autoencoder(image, quantise=False)
    perceptual = module.distance(output.image, image)[:, None, None, None]
    loss = module.autoencoder_loss(image, output)["loss"]
    torch.testing.assert_close(loss, ((output.image - image).abs() + 0.7 * perceptual).mean())
    assert not any(key.startswith("distance") for key in module.state_dict())


def test_a_fit_with_perceptual_loss_and_one_without_its_weights(runner, tmp_path, monkeypatch, capsys):
    weights = write_backbone(tmp_path / "drawn.pth")
    perceptual = {"network": "squeeze", "weights": str(weights), "weight": 5.0}
    runner("fit", "autoencoder", "vq", over(15, perceptual=perceptual))
    distances = logged(runner.folder / "vq", "train/perceptual")
    assert len(distances) == 15 and sum(distances[-4:]) < sum(distances[:4])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    config = runner.config("autoencoder", "vgg", over(1, perceptual={"network": "vgg"}))
    assert main(["fit", "-c", str(config)]) == 1
    assert "fetch-weights vgg" in capsys.readouterr().err.strip().splitlines()[-1]


def test_test_writes_the_scores_of_the_codec(runner):
    runner("fit", "autoencoder", "scored", over(2))
    runner("test", "autoencoder", "scored", {"data": {"test_frames": 8}})
    results = json.loads((runner.folder / "scored" / "results.json").read_text())
    assert set(results["methods"]) == {"ground truth", "codec"}
    assert results["methods"]["codec"]["per_clip"]["synthetic_003"]["frames"] == 8
    assert results["model"]["weights"] == read_weights(runner.checkpoint("scored")).hash
