"""Training of a SyncNet: its loss and scores against plain loops, and the whole through the real command line."""

import pytest
import torch
from torch.nn import functional as F

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.sync import SyncData, SyncWindows
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.sync import sync_scores
from difftalk_pl.models.syncnet import SyncNetConfig
from difftalk_pl.training.importing import import_checkpoint
from difftalk_pl.training.syncnet import SyncNetTraining, choices, heard, own_distances
from difftalk_pl.training.weights import export, read_weights
from tests.training.test_autoencoder import logged

STRETCHES, WINDOWS, SHIFT, CHANNELS = 3, 4, 5, 6
PLACES = {"clip": ["ann", "bob", "ann"], "frame": torch.tensor([10, 10, 17])}


@pytest.fixture
def embeddings():
    """Lips (B, W, C) and speech (B, W + 2 S, C)."""
    generator = torch.Generator().manual_seed(0)
    lips = torch.randn(STRETCHES, WINDOWS, CHANNELS, generator=generator, dtype=torch.float64)
    return lips, torch.randn(STRETCHES, WINDOWS + 2 * SHIFT, CHANNELS, generator=generator, dtype=torch.float64)


def test_the_loss_is_that_of_a_plain_loop(embeddings):
    """Speech of ann that is 7 frames or more away counts as another's; what is nearer is a shift already."""
    lips, speech = embeddings
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
    logits = choices(lips, speech, heard(batch, 2 * SHIFT), torch.tensor(2.0))
    loss = F.cross_entropy(logits, torch.full(logits.shape[:1], SHIFT))
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_gradients_are_finite_though_some_speech_is_left_out(embeddings):
    lips, speech = (each.clone().requires_grad_() for each in embeddings)
    scale = torch.tensor(1.0, requires_grad=True)
    batch = {**PLACES, "mfcc": torch.zeros(STRETCHES, WINDOWS + 2 * SHIFT, 13, 20)}
    logits = choices(lips, speech, heard(batch, 2 * SHIFT), scale)
    F.cross_entropy(logits, torch.full(logits.shape[:1], SHIFT)).backward()
    assert all(each.grad.isfinite().all() and each.grad.abs().sum() > 0 for each in (lips, speech, scale))


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_validation_counts_pairs_and_offsets(late, monkeypatch):
    """Embeddings that are known: speech is the lips', some frames late, and only at the right shift it is near."""
    said = F.normalize(torch.randn(STRETCHES, 40, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    lips = said[:, 10:20]
    speech = said[:, 10 - SHIFT - late : 20 + SHIFT - late]
    module = SyncNetTraining(SyncNetConfig(64, 0.05, 16))
    monkeypatch.setattr(module, "embed", lambda batch: (lips, speech))
    module.validation_step({}, 0)
    distance = own_distances(lips, speech)
    expected = torch.stack(
        [(distance[..., SHIFT] < distance[..., k]).double().mean() for k in range(2 * SHIFT + 1) if k != SHIFT]
    ).mean()
    assert float(module.val_pairs.compute()) == pytest.approx(float(expected))
    assert (float(module.val_pairs.compute()) == 1) == (late == 0)
    assert float(module.val_offset_error.compute()) == abs(late)
    curve = sync_scores(said[0], F.pad(said[0], (0, 0, max(late, 0), max(-late, 0)))[max(-late, 0) :][:40], SHIFT)
    assert abs(curve.offset) == abs(late), "and the published scores see the same"


def test_a_run_trains_validates_and_goes_on(runner):
    runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 2}})
    run = runner.folder / "sync"
    assert len(logged(run, "train/loss")) == len(logged(run, "train/accuracy")) == 2
    (pairs,), (error,), (loss,) = (logged(run, f"val/{name}") for name in ("pairs", "offset_error", "loss"))
    assert 0 <= pairs <= 1 and 0 <= error <= 5 and 0 < loss < 20
    cli = runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 4}})
    assert cli.trainer.global_step == 4 and cli.model.trained_on == ["synthetic_000", "synthetic_001"]
    runner("fit", "syncnet", "whole", {"trainer": {"max_steps": 4}})
    one, other = (torch.load(runner.checkpoint(name), weights_only=True)["state_dict"] for name in ("sync", "whole"))
    assert all(torch.equal(value, other[name]) for name, value in one.items()), "as if it had never stopped"


def test_a_few_stretches_can_be_learnt_by_heart(prepared):
    torch.manual_seed(0)
    windows = SyncWindows(open_clips(prepared), SyncData("whole_frame", 64, 8, 5), fixed=True)
    batch = torch.utils.data.default_collate([windows[number] for number in (0, 2, 9)])
    module = SyncNetTraining(SyncNetConfig(64, 0.1, 16, True))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    found = []
    for _ in range(200):
        logits = choices(*module.embed(batch), heard(batch, 2 * SHIFT), module.log_scale.exp())
        loss = F.cross_entropy(logits, torch.full(logits.shape[:1], SHIFT))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float((logits.argmax(dim=-1) == SHIFT).float().mean()))
    assert found[0] < 0.4 and sum(found[-5:]) / 5 > 0.9


def test_the_checkpoint_says_what_it_is(runner, tmp_path):
    runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 2}})
    weights = read_weights(runner.checkpoint("sync"))
    assert weights.stage == "syncnet" and weights.config["crop"] == "whole_frame"
    assert weights.config["trained_on"] == ["synthetic_000", "synthetic_001"]
    assert weights.config["data_label"] == "drawn faces" and weights.config["scale"] == pytest.approx(10, rel=0.1)
    export(runner.checkpoint("sync"), tmp_path / "half", half=True)
    import_checkpoint(tmp_path / "half", tmp_path / "again.ckpt", expect="syncnet")
    again = read_weights(tmp_path / "again.ckpt")
    assert again.hash == read_weights(tmp_path / "half").hash and again.config == weights.config
    card = (tmp_path / "half" / "README.md").read_text()
    assert "SyncNet" in card and "weights.syncnet()" in card
    still = {"init_from": str(tmp_path / "half"), "optimisation": {"learning_rate": 1e-9}}
    module = runner("fit", "syncnet", "more", {"model": {"init_args": still}, "trainer": {"max_steps": 1}}).model
    assert float(module.log_scale.detach().exp()) == pytest.approx(weights.config["scale"], rel=1e-2)


def test_other_weights_are_refused_by_name(runner, codec, tmp_path):
    runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 1}})
    weights = read_weights(runner.checkpoint("sync"))
    for network, needed in (("autoencoder", "an autoencoder"), ("difftalk", "a diffusion model")):
        with pytest.raises(UserError, match=rf"last\.ckpt: these are weights of a SyncNet; {needed} \(stage"):
            getattr(weights, network)()
    with pytest.raises(UserError, match=r"these are weights of an autoencoder \(stage 1\); a SyncNet is needed"):
        read_weights(codec).syncnet()
    with pytest.raises(UserError, match="this is a SyncNet, and an autoencoder"):
        import_checkpoint(runner.checkpoint("sync"), tmp_path / "out", expect="autoencoder")


@pytest.mark.parametrize(
    ("over", "complaint"),
    [
        ({"data": {"contents": "frames"}}, "data.contents frames: a SyncNet trains on stretches"),
        ({"data": {"sync": {"side": 96}}}, r"data\.sync\.side is 96, model\.syncnet\.side is 64"),
    ],
)
def test_data_that_do_not_fit_are_refused(runner, over, complaint):
    with pytest.raises(UserError, match=complaint):
        runner("fit", "syncnet", "wrong", over)


def test_a_checkpoint_of_another_crop_or_stage_is_no_start(runner):
    runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 1}})
    with pytest.raises(UserError, match=r"trained on data\.sync\.crop whole_frame, not face_crop"):
        runner("fit", "syncnet", "sync", {"data": {"sync": {"crop": "face_crop"}}})


def test_a_step_that_is_not_finite_leaves_no_trace(runner, monkeypatch):
    original = SyncNetTraining.training_step

    def spoilt(self, batch, batch_idx):
        if self.global_step == 3:
            batch["mfcc"][1] = torch.nan
        return original(self, batch, batch_idx)

    over = {"trainer": {"max_steps": 5, "limit_val_batches": 0}}
    with monkeypatch.context() as patch:
        patch.setattr(SyncNetTraining, "training_step", spoilt)
        with pytest.raises(UserError, match=r"step 3: loss is nan with .*not finite in the data: mfcc"):
            runner("fit", "syncnet", "broken", over)
    reached = torch.load(runner.checkpoint("broken"), weights_only=True)
    assert reached["global_step"] == 3 and all(value.isfinite().all() for value in reached["state_dict"].values())
    for name in ("broken", "whole"):
        runner("fit", "syncnet", name, over)
    one, other = (torch.load(runner.checkpoint(name), weights_only=True)["state_dict"] for name in ("broken", "whole"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_batches_of_the_data_fit_the_network(prepared):
    settings = SyncData("face_crop", 64, 8, 5)
    windows = SyncWindows(open_clips(prepared), settings)
    batch = torch.utils.data.default_collate([windows[0], windows[1]])
    lips, speech = SyncNetTraining(SyncNetConfig(64, 0.05, 16, True)).embed(batch)
    assert lips.shape == (2, 4, 16) and speech.shape == (2, 14, 16)
    torch.testing.assert_close(lips.norm(dim=-1), torch.ones(2, 4))
