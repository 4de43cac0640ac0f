"""Training of a SyncNet: its loss and scores against plain loops, and through the real command line."""

import pytest
import torch
from torch.nn import functional as F

from difftalk_pl.errors import UserError
from difftalk_pl.models.syncnet import SyncNetConfig
from difftalk_pl.training.syncnet import SyncNetTraining, choices, own_distances, same_speech
from difftalk_pl.training.weights import export, read_weights
from tests.training.test_autoencoder import assert_equal, logged, state

STRETCHES, WINDOWS, SHIFT, CHANNELS = 3, 4, 5, 6
PLACES = {"clip": ["ann", "bob", "ann"], "frame": torch.tensor([10, 10, 17])}


def test_the_loss_is_that_of_a_plain_loop():
    """Speech of ann that is 7 frames or more away counts as another's; what is nearer is a shift already."""
    generator = torch.Generator().manual_seed(0)
    shapes = (STRETCHES, WINDOWS, CHANNELS), (STRETCHES, WINDOWS + 2 * SHIFT, CHANNELS)
    lips, speech = (torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes)
    losses = []
    for b in range(STRETCHES):
        for i in range(WINDOWS):
            own = [((lips[b, i] - speech[b, i + k]) ** 2).sum() for k in range(2 * SHIFT + 1)]
            others = []
            for c in range(STRETCHES):
                for j in range(WINDOWS):
                    apart = abs(int(PLACES["frame"][b] + i - PLACES["frame"][c] - j))
                    if PLACES["clip"][b] != PLACES["clip"][c] or apart > SHIFT:
                        others.append(((lips[b, i] - speech[c, j + SHIFT]) ** 2).sum())
            losses.append(2 * own[SHIFT] + torch.stack([-2 * each for each in own + others]).logsumexp(0))
    batch = {**PLACES, "mfcc": torch.zeros(STRETCHES, WINDOWS + 2 * SHIFT, 13, 20)}
    logits = choices(lips, speech, same_speech(batch, 2 * SHIFT), torch.tensor(2.0))
    loss = F.cross_entropy(logits, torch.full(logits.shape[:1], SHIFT))
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert all(each.grad.isfinite().all() and each.grad.abs().sum() > 0 for each in (lips, speech))


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_validation_counts_pairs_and_offsets(late, monkeypatch):
    """Speech has the embeddings of the lips, some frames late."""
    said = F.normalize(torch.randn(STRETCHES, 40, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    lips, speech = said[:, 10:20], said[:, 10 - SHIFT - late : 20 + SHIFT - late]
    module = SyncNetTraining(SyncNetConfig(64, 0.05, 16))
    monkeypatch.setattr(module, "embed", lambda batch: (lips, speech))
    module.validation_step({}, 0)
    distance = own_distances(lips, speech)
    others = [k for k in range(2 * SHIFT + 1) if k != SHIFT]
    expected = torch.stack([(distance[..., SHIFT] < distance[..., k]).double().mean() for k in others]).mean()
    assert float(module.val_pairs.compute()) == pytest.approx(float(expected))
    assert (float(module.val_pairs.compute()) == 1) == (late == 0)
    assert float(module.val_offset_error.compute()) == abs(late)


def test_a_run_learns_validates_and_resumes_exactly(runner):
    over = {"data": {"loading": {"batch_size": 8}}, "trainer": {"max_steps": 30, "limit_val_batches": 0}}
    runner("fit", "syncnet", "learnt", over)
    losses = logged(runner.folder / "learnt", "train/loss")
    assert sum(losses[-8:]) < 0.95 * sum(losses[:8])
    for run, steps in (("parts", 2), ("parts", 4), ("whole", 4)):
        runner("fit", "syncnet", run, {"trainer": {"max_steps": steps}})
    assert_equal(state(runner, "parts"), state(runner, "whole"))
    pairs, error = (logged(runner.folder / "whole", f"val/{name}")[-1] for name in ("pairs", "offset_error"))
    assert 0 <= pairs <= 1 and 0 <= error <= 5


def test_the_checkpoint_says_what_it_is_and_is_exported_into_its_own_folder_again(runner, fitted_syncnet, tmp_path):
    weights = read_weights(fitted_syncnet / "checkpoints" / "last.ckpt")
    assert weights.config["crop"] == "whole_frame" and weights.config["data_label"] == "drawn faces"
    assert weights.config["trained_on"] == ["synthetic_000", "synthetic_001"]
    assert weights.config["scale"] == pytest.approx(10, rel=0.1)
    for _ in range(2):
        export(fitted_syncnet / "checkpoints" / "last.ckpt", tmp_path / "sync")
    assert read_weights(tmp_path / "sync").hash == weights.hash
    still = {"init_from": str(tmp_path / "sync"), "optimisation": {"learning_rate": 1e-9}}
    cli = runner("fit", "syncnet", "next", {"model": {"init_args": still}, "trainer": {"max_steps": 1}})
    start = weights.state["netcnnlip.0.weight"]
    torch.testing.assert_close(cli.model.syncnet.netcnnlip[0].weight.detach(), start, atol=1e-6, rtol=1e-4)


def test_frames_of_another_side_are_refused(runner):
    with pytest.raises(UserError, match=r"data\.contents sync and data\.sync\.side 64"):
        runner("fit", "syncnet", "wrong", {"data": {"sync": {"side": 96}}})
    with pytest.raises(UserError, match="these are weights of a SyncNet"):
        runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 1}})
        read_weights(runner.checkpoint("sync")).autoencoder()
