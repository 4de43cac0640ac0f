"""Stage 1 through the real command line."""

import csv
import json

import torch

from difftalk_pl.training.weights import read_weights


def logged(run, key):
    """All values of a key in the newest metrics.csv of a run."""
    newest = sorted((run / "metrics").glob("version_*"))[-1] / "metrics.csv"
    with newest.open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def test_a_run_lies_in_one_folder_and_its_loss_falls(runner):
    cli = runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 20}})
    run = runner.folder / "vq"
    assert {"config.yaml", "checkpoints", "metrics", "samples", "wandb"} <= {path.name for path in run.iterdir()}
    losses = logged(run, "train/l1")
    assert len(losses) == 20 and sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert cli.trainer.global_step == 20
    assert list((run / "samples").glob("*.png"))


def test_two_optimizers_count_one_step_a_batch_and_the_discriminator_starts_by_its_own_counter(runner):
    adversarial = {"weight": 0.75, "start": 3, "filters": 8, "layers": 1}
    over = {"model": {"init_args": {"adversarial": adversarial}}, "trainer": {"max_steps": 5}}
    cli = runner("fit", "autoencoder", "gan", over)
    assert cli.trainer.global_step == 5
    assert int(cli.model.batches) == 5
    assert len(logged(runner.folder / "gan", "train/discriminator_loss")) == 2
    assert all(value > 0 for value in logged(runner.folder / "gan", "train/adaptive_weight"))


def test_warm_up_without_quantisation_then_kmeans_makes_a_codebook_that_fits(runner):
    def coarseness(warmup):
        """Share of the latents' variance that quantisation loses, and codes in use, after 12 batches."""
        over = {"model": {"init_args": {"codebook": {"warmup": warmup}}}, "trainer": {"max_steps": 12}}
        cli = runner("fit", "autoencoder", f"warm{warmup}", over)
        network = cli.model.autoencoder.eval()
        with torch.no_grad():
            z = network.encode(next(iter(cli.datamodule.val_dataloader()))["image"])
            quantised = network.quantise(z)
        return float((quantised.z_q - z).square().mean() / z.var()), len(quantised.indices.unique()), z

    lost, used, z = coarseness(12)
    assert used > 20 and lost < 0.2
    assert 0.5 < z.std() < 2, "latents of about unit variance"
    assert coarseness(0)[0] > 2 * lost


def test_normalising_the_latents_changes_no_plain_reconstruction(runner):
    cli = runner("fit", "autoencoder", "norm", {"trainer": {"max_steps": 2}})
    network = cli.model.autoencoder.eval()
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = network(image, quantise=False)
        network.normalise_latents(before.z.movedim(1, -1).flatten(0, -2))
        after = network(image, quantise=False)
    assert torch.allclose(before.image, after.image, atol=1e-4)
    assert torch.allclose(after.z.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(after.z.std((0, 2, 3)), torch.ones(3), atol=1e-3)


def test_the_discriminator_and_its_optimizer_survive_a_resume(runner):
    over = {"model": {"init_args": {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}}}}
    runner("fit", "autoencoder", "resume", over)
    first = torch.load(runner.checkpoint("resume"), weights_only=True)
    cli = runner("fit", "autoencoder", "resume", {**over, "trainer": {"max_steps": 8}})
    assert cli.trainer.global_step == 8
    assert int(cli.model.batches) == 8
    steps = [float(state["step"]) for opt in cli.trainer.optimizers for state in opt.state_dict()["state"].values()]
    assert set(steps) == {8.0}, "both optimizers went on from their own state"
    assert first["global_step"] == 4


def test_test_writes_the_codecs_scores(runner):
    runner("fit", "autoencoder", "scored")
    runner("test", "autoencoder", "scored", {"data": {"test_frames": 8}})
    results = json.loads((runner.folder / "scored" / "results.json").read_text())
    assert set(results["methods"]) == {"ground truth", "codec"}
    assert results["methods"]["codec"]["per_clip"]["synthetic_003"]["frames"] == 8
    assert results["model"]["weights"] == read_weights(runner.checkpoint("scored")).hash
