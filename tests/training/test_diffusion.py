"""Latents and stage 2 through the real command line."""

import json

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.errors import UserError
from difftalk_pl.generation.sampler import Generator
from difftalk_pl.media.video import probe, read_frames
from difftalk_pl.training.codec import LatentCodec, cache_latents
from difftalk_pl.training.weights import read_weights
from tests.training.test_autoencoder import logged
from tests.wandb_records import history, read_wandb


def on(codec, **model):
    return {"model": {"init_args": {"autoencoder": str(codec), **model}}}


def test_cached_latents_are_those_of_the_frame_and_of_the_masked_frame(prepared, codec):
    network, clip = LatentCodec.load(codec), open_clips(prepared)[1]
    cached = LatentCache(prepared, network.hash, "mouth_safe").open(clip)
    frame = 37
    image = torch.from_numpy(clip.reader()[frame]).permute(2, 0, 1)[None].float() / 127.5 - 1
    mask = torch.from_numpy(MaskPolicy("mouth_safe")(clip.landmarks[frame], 64))
    z, z_masked = network.encode(image)[0], network.encode(torch.where(mask, 0.0, image))[0]
    assert cached.shape == (2, clip.frames, 3, 16, 16) and cached.dtype == np.float16
    assert torch.allclose(torch.from_numpy(cached[0, frame].astype(np.float32)), z, atol=5e-3)
    assert torch.allclose(torch.from_numpy(cached[1, frame].astype(np.float32)), z_masked, atol=5e-3)
    assert (z - z_masked).abs().max() > 0.01


def test_a_second_cache_latents_does_only_what_is_missing(prepared, codec):
    cache = LatentCache(prepared, LatentCodec.load(codec).hash, "mouth_safe")
    names = [clip.name for clip in open_clips(prepared)]
    stamps = {name: cache.path(name).stat().st_mtime_ns for name in names}
    cache.path(names[0]).unlink()
    cache_latents(prepared, codec, workers=0, device="cpu")
    assert cache.path(names[0]).stat().st_mtime_ns > stamps[names[0]]
    assert all(cache.path(name).stat().st_mtime_ns == stamps[name] for name in names[1:])
    assert not list(cache.folder.glob(".*"))


def test_a_cache_of_another_autoencoder_is_an_error_that_names_it(runner, codec):
    runner("fit", "autoencoder", "other", {"trainer": {"max_steps": 1}})
    with pytest.raises(UserError, match=f"run cache-latents .* of another autoencoder.*{LatentCodec.load(codec).hash}"):
        runner("fit", "diffusion", "wrong", on(runner.checkpoint("other")))


def test_fit_test_and_the_files_of_a_run(runner, codec):
    over = on(codec) | {"trainer": {"max_steps": 6}}
    cli = runner("fit", "diffusion", "talk", over)
    assert cli.trainer.global_step == 6
    run = runner.folder / "talk"
    assert len(logged(run, "train/loss")) == 6
    assert logged(run, "val/loss")
    assert list((run / "samples").glob("*.png"))
    (record,) = run.glob("wandb/offline-run-*/*.wandb")
    assert {"train/loss", "val/loss", "samples"} <= {key for row in history(read_wandb(run)) for key in row}
    assert list(record.parent.glob("files/media/images/samples*.png"))
    runner("test", "diffusion", "talk", over)
    results = json.loads((run / "results.json").read_text())
    assert set(results["methods"]) == {"ground truth", "codec", "model", "shuffled audio"}
    assert results["methods"]["model"]["per_clip"]["synthetic_003"]["frames"] == 6
    truth, model = (results["methods"][name]["overall"] for name in ("ground truth", "model"))
    assert truth["ssim"] == pytest.approx(1) and truth["psnr"] is None and model["psnr"] > model["mouth_psnr"] > 0
    assert results["model"]["weights"] == read_weights(run / "checkpoints" / "last.ckpt").hash
    assert (run / "samples" / "test_synthetic_003.png").exists()


def test_on_images_the_loss_is_that_on_cached_latents(runner, codec):
    same = {"trainer": {"max_steps": 1}}
    runner("fit", "diffusion", "latents", on(codec) | same)
    runner("fit", "diffusion", "images", on(codec) | same | {"data": {"contents": "images"}})
    cached, direct = (logged(runner.folder / name, "train/loss")[0] for name in ("latents", "images"))
    assert direct == pytest.approx(cached, rel=1e-2)


def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(runner, codec):
    whole = on(codec) | {"trainer": {"max_steps": 6, "limit_val_batches": 0}}
    half = on(codec) | {"trainer": {"max_steps": 3, "limit_val_batches": 0}}
    runner("fit", "diffusion", "whole", whole)
    runner("fit", "diffusion", "halves", half)
    runner("fit", "diffusion", "halves", whole)
    expected, resumed = logged(runner.folder / "whole", "train/loss"), logged(runner.folder / "halves", "train/loss")
    assert resumed == pytest.approx(expected[3:], rel=1e-4)


def test_averaged_weights_are_what_a_checkpoint_hands_on(runner, codec):
    ema = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}
    cli = runner("fit", "diffusion", "ema", on(codec) | {"trainer": {"callbacks+": [ema]}})
    checkpoint = torch.load(runner.checkpoint("ema"), weights_only=True)
    weights = read_weights(runner.checkpoint("ema"))
    name = "denoiser.conv_in.weight"
    assert torch.equal(weights.state[name], checkpoint["state_dict"][f"difftalk.{name}"])
    assert not torch.equal(weights.state[name], checkpoint["current_model_state"][f"difftalk.{name}"])
    assert not any(key.startswith("codec") for key in checkpoint["state_dict"])
    assert cli.trainer.global_step == 4


def test_the_data_must_suit_the_model(runner, codec):
    over = on(codec, difftalk={"conditioning": {"audio_channels": 29}})
    with pytest.raises(UserError, match=r"mfcc has 26 channels.*set it to 26"):
        runner("fit", "diffusion", "channels", over)
    runner("fit", "diffusion", "masks", on(codec) | {"trainer": {"max_steps": 1}})
    with pytest.raises(UserError, match=r"no latents|trained on"):
        runner("fit", "diffusion", "masks", on(codec) | {"data": {"mask": "below_nose"}})


def test_without_a_checkpoint_test_says_so(runner, codec):
    with pytest.raises(UserError, match="no checkpoint of this run; fit first"):
        runner("test", "diffusion", "nothing", on(codec))


def test_predict_writes_every_test_clip_with_its_sound(runner, codec):
    over = on(codec) | {"trainer": {"max_steps": 1}, "data": {"test_frames": 30}}
    runner("fit", "diffusion", "talk", over)
    runner("predict", "diffusion", "talk", over)
    written = runner.folder / "talk" / "predictions" / "synthetic_003.mp4"
    info = probe(written)
    assert (info.width, info.has_audio) == (64, True) and len(list(read_frames(written))) == 30


def test_the_parts_of_an_accumulated_step_do_not_share_their_noise(runner, codec, monkeypatch):
    drawn = []

    def noise_error(self, batch, generator):
        drawn.append(torch.rand((), generator=generator).item())
        return self.difftalk.denoiser.conv_in.weight.sum()

    monkeypatch.setattr("difftalk_pl.training.diffusion.DiffusionTraining._noise_error", noise_error)
    whole = on(codec) | {"trainer": {"accumulate_grad_batches": 2, "max_steps": 2, "limit_val_batches": 0}}
    runner("fit", "diffusion", "accumulated", whole)
    assert len(drawn) == len(set(drawn)) == 4


def test_the_rate_of_the_configuration_holds_on_resume(runner, codec):
    first = on(codec, optimisation={"learning_rate": 1e-3}) | {"trainer": {"max_steps": 2, "limit_val_batches": 0}}
    then = on(codec, optimisation={"learning_rate": 1e-5, "weight_decay": 0.5}) | {
        "trainer": {"max_steps": 4, "limit_val_batches": 0}
    }
    runner("fit", "diffusion", "rates", first)
    cli = runner("fit", "diffusion", "rates", then)
    (group,) = cli.trainer.optimizers[0].param_groups
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (1e-5, 1e-5, 0.5)


def test_the_control_hears_another_moment(runner, codec, monkeypatch):
    cli = runner("fit", "diffusion", "spied", on(codec) | {"trainer": {"max_steps": 1, "limit_val_batches": 0}})
    heard = []
    monkeypatch.setattr(
        Generator, "__call__", lambda self, window, memory=None: heard.append(window["audio"]) or window["image"]
    )
    cli.datamodule.setup("test")
    windows = cli.datamodule.evaluation("test", control=True)
    batch = next(iter(cli.datamodule.evaluation_loader(windows, windows.indices(0))))
    rows = cli.model.generate(batch)
    assert list(rows) == ["model", "codec", "shuffled audio"]
    assert torch.equal(heard[0], batch["audio"]) and torch.equal(heard[1], batch["other_audio"])
    assert not torch.equal(batch["audio"], batch["other_audio"])


def test_people_seen_in_training_are_named_when_they_are_tested(runner, codec, caplog):
    runner("fit", "diffusion", "seen", on(codec) | {"trainer": {"max_steps": 1, "limit_val_batches": 0}})
    other = {"data": {"split": {"val": ["synthetic_002"], "test": ["synthetic_000"], "train": ["synthetic_003"]}}}
    runner("test", "diffusion", "seen", on(codec) | other)
    results = json.loads((runner.folder / "seen" / "results.json").read_text())
    assert results["clips"]["seen_in_training"] == ["synthetic_000"]
    runner("test", "diffusion", "unknown", on(codec) | {"ckpt_path": None})
    results = json.loads((runner.folder / "unknown" / "results.json").read_text())
    assert results["clips"]["seen_in_training"] is None
