"""Two processes learn what one learns from their batches together, and stop together."""

import datetime
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import distributed, multiprocessing

from difftalk_pl.evaluation.ranks import anywhere, gathered, gathered_objects, same_as_first, summed
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction
from difftalk_pl.models.codebook import Codebook
from difftalk_pl.training.codebook import CodebookTraining
from tests.runner import own_environment

WAYS = {
    "gradient": Codebook(revive_after=2, seed=3),
    "ema": Codebook(update="ema", ema_decay=0.8, revive_after=2, revive_below=0.1),
    "warm": Codebook(warmup=2, vectors=256, update="ema"),
}
SMALL = AutoencoderConfig((8, 16), layers_per_block=1, codes=16, norm_num_groups=4, mid_block_attention=False)
STEPS, BATCH = 6, 8  # a batch of all processes together
DDP = {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}


def learn(settings, rank=0, world=1):
    """The codebook and all that is kept of it after some batches, of which this process sees its part."""
    torch.manual_seed(0)
    network = Autoencoder(SMALL)
    training = CodebookTraining(settings, SMALL.codes, SMALL.latent_channels)
    for step in range(STEPS):
        z = torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        z = z[rank * BATCH // world : (rank + 1) * BATCH // world]
        indices = network.quantise(z).indices if step >= settings.warmup else None
        training.follow(network, Reconstruction(z, z, z.new_zeros(()), indices), step)
    return {
        "codes": network.codes.detach(),
        "counts": training.counts,
        "revived": training.revived,
        **dict(training.state_dict()),
    }


def process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    mine = torch.arange(2.0) + 10 * rank
    first = mine.clone()
    same_as_first([first])
    values = {
        "summed": summed(mine),
        "gathered": gathered(mine),
        "objects": gathered_objects(f"rank {rank}"),
        "first": first,
        "anywhere": [anywhere(torch.tensor(rank == 1)), anywhere(torch.tensor(False))],
        **{name: learn(settings, rank, 2) for name, settings in WAYS.items()},
    }
    torch.save(values, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes has in the end."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(process, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.ddp
def test_collectives(ranks):
    for values in ranks:
        assert values["summed"].tolist() == [10, 12] and values["gathered"].tolist() == [0, 1, 10, 11]
        assert values["objects"] == ["rank 0", "rank 1"] and values["first"].tolist() == [0, 1]
        assert values["anywhere"] == [True, False]


@pytest.mark.ddp
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_hold_the_codebook_that_one_has_of_the_joined_batches(ranks, way):
    one, (left, right) = learn(WAYS[way]), (values[way] for values in ranks)
    assert one.keys() == left.keys() == right.keys()
    for name, value in one.items():
        assert torch.equal(left[name], right[name]), f"{name} is the same in both, bit by bit"
        torch.testing.assert_close(left[name], value, atol=1e-5, rtol=1e-5, msg=name)
    assert one["revived"] > 0 or way == "warm"


def test_alone_nothing_changes():
    value = torch.ones(2)
    assert summed(value) is value and gathered(value) is value and gathered_objects("x") == ["x"]
    assert anywhere(torch.tensor(True)) and not anywhere(torch.tensor(False))


class SpoilsRankOne(L.Callback):
    """At step 2 the batch of the second process, and only that, is not finite."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 2 and os.environ.get("SPOIL"):
            batch["image"][0] = torch.nan


def fit(runner, run, over, **environment):
    command = [sys.executable, "-m", "difftalk_pl", "fit", "-c", str(runner.config("autoencoder", run, over))]
    project = str(Path(__file__).parents[2])
    environment = own_environment(PYTHONPATH=project, **environment)
    return subprocess.run(
        command, env=environment, cwd=project, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.ddp
@pytest.mark.slow
def test_all_processes_stop_where_one_meets_a_number_that_is_not_finite_and_go_on(runner):
    over = {
        "model": {"init_args": {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}}},
        "trainer": {**DDP, "limit_val_batches": 0, "callbacks+": [{"class_path": f"{__name__}.SpoilsRankOne"}]},
    }
    stopped = fit(runner, "nan", over, SPOIL="1")
    assert stopped.returncode == 1, "in time, so none has waited for the other"
    assert "step 2: l1 is nan" in stopped.stderr and "not finite in the data: image" in stopped.stderr
    line = next(line for line in stopped.stderr.splitlines() if "step 2: " in line)
    assert line.count(" with synthetic_") == 1, "the batch of the process that met it, not of the one that shared it"
    checkpoint = torch.load(runner.checkpoint("nan"), weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert fit(runner, "nan", over).returncode == 0
    assert torch.load(runner.checkpoint("nan"), weights_only=True)["global_step"] == 4


@pytest.mark.ddp
@pytest.mark.slow
def test_stage_one_takes_in_two_processes_the_steps_of_one(runner):
    """The discriminator's backward pass comes between the autoencoder's and its step, and must not touch its gradients.
    It is without weight here, as batch normalisation sees the batch of a process and not the joined one."""

    def over(batch, **trainer):
        model = {"adversarial": {"weight": 1e-30, "filters": 8, "layers": 1}, "codebook": {"update": "ema"}}
        trainer = {"max_steps": 3, "limit_val_batches": 0, **trainer}
        return {"model": {"init_args": model}, "data": {"loading": {"batch_size": batch}}, "trainer": trainer}

    def weights(run):
        state = torch.load(runner.checkpoint(run), weights_only=True)["state_dict"]
        return torch.cat([state[name].flatten() for name in sorted(state) if name.startswith("autoencoder.")])

    result = fit(runner, "two", over(4, **DDP))
    assert result.returncode == 0, result.stderr[-2000:]
    runner("fit", "autoencoder", "one", over(8))
    runner("fit", "autoencoder", "start", over(8, max_steps=1))
    one, two, start = map(weights, ("one", "two", "start"))
    assert (one - two).abs().mean() < 0.02 * (one - start).abs().mean()
