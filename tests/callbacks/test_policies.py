"""One policy of references for evaluation and prediction: clips advance together and come out as alone."""

import shutil

import pytest
from PIL import Image

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import FRAME, WindowDataset
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judging import in_turn
from difftalk_pl.generation.sampler import Generator
from difftalk_pl.media.video import read_frames
from tests.callbacks.test_evaluation import over, results

SIDES = {"split": {"train": ["synthetic_003"], "val": ["synthetic_002"], "test": ["synthetic_000", "synthetic_001"]}}


def settings(codec, **sampler):
    """Two people on the test side."""
    found = over(codec, faces=False)
    found["model"]["init_args"]["sampler"] = {"name": "dpm++", "steps": 2, **sampler}
    found["data"] |= SIDES
    found["trainer"] |= {"max_steps": 1, "limit_val_batches": 0}
    return found


@pytest.fixture
def trained(runner, codec):
    runner("fit", "diffusion", "talk", settings(codec))
    return runner


def test_windows_of_several_clips_in_turn(prepared):
    windows = WindowDataset(open_clips(prepared)[:3], FRAME, frames_per_clip=4)
    assert in_turn(windows, [0, 2]) == [0, 8, 1, 9, 2, 10, 3, 11]


def scores(trained, codec, batch_size, **sampler):
    """PSNR by method and clip, and the whole file."""
    settings_ = settings(codec, **sampler)
    settings_["data"]["loading"] = {"eval_batch_size": batch_size, "workers": 0}
    trained("test", "diffusion", "talk", settings_)
    found = results(trained.folder / "talk")
    by_method = {
        method: [found["methods"][method]["per_clip"][name]["psnr"] for name in ("synthetic_000", "synthetic_001")]
        for method in ("model", "shuffled audio", "codec")
    }
    return by_method, found


def test_progressive_scores_do_not_depend_on_how_many_clips_advance_together(trained, codec):
    alone, found = scores(trained, codec, 1, reference="progressive:widest")
    for batch_size in (2, 7):
        together, _ = scores(trained, codec, batch_size, reference="progressive:widest")
        for method, values in alone.items():
            assert together[method] == pytest.approx(values, abs=0.02), method
    independent, other = scores(trained, codec, 7)
    assert independent["model"] != pytest.approx(alone["model"], abs=0.02)
    assert independent["codec"] == pytest.approx(alone["codec"], abs=1e-4)
    assert found["protocol"]["generation"]["reference"] == "progressive:widest"
    assert found["protocol"]["generation"]["steadiness"]["noise"] == "shared"
    assert other["protocol_hash"] == found["protocol_hash"], "how frames are made is no part of it"


def test_a_damaged_clip_of_a_group_costs_itself_alone(trained, codec, prepared, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(prepared, root)
    (root / "clips" / "synthetic_000" / "video.mp4").write_bytes(b"no video")
    over = settings(codec, reference="progressive")
    over["data"]["root"] = str(root)
    trained("test", "diffusion", "talk", over)
    found = results(trained.folder / "talk")
    assert found["clips"]["scored"] == 1 and list(found["clips"]["reasons"]) == ["synthetic_000"]
    assert found["methods"]["model"]["per_clip"]["synthetic_001"]["psnr"] > 0
    assert (trained.folder / "talk" / "samples" / "test_synthetic_001.mp4").exists()


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
@pytest.mark.parametrize("source", ["widest", "random", "file"])
def test_every_command_takes_references_from_the_source_that_is_asked_for(
    trained, codec, tmp_path, monkeypatch, command, source
):
    """One for a clip, or two where its best one is too near to some frames; -1 stands for a picture."""
    Image.fromarray(next(iter(perform(seed=0, number=901, seconds=1).frames(256)))).save(tmp_path / "face.png")
    seen: dict[str, set[int]] = {}

    def spy(self, window, memory=None):
        for clip, number in zip(window["clip"], window["reference_frame"].tolist()):
            seen.setdefault(clip, set()).add(number)
        return window["image"]

    over = settings(codec, reference=str(tmp_path / "face.png") if source == "file" else source)
    over["data"]["min_reference_gap"] = 10
    over["trainer"].pop("limit_val_batches")
    monkeypatch.setattr(Generator, "__call__", spy)
    trained(command, "diffusion", "talk", over)
    assert seen and all(len(numbers) <= 2 for numbers in seen.values())
    assert (set.union(*seen.values()) == {-1}) is (source == "file")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_clip_costs_predict_itself_alone_in_one_line(trained, codec, prepared, tmp_path, caplog, workers):
    root = tmp_path / "damaged"
    shutil.copytree(prepared, root)
    (root / "clips" / "synthetic_000" / "video.mp4").write_bytes(b"no video")
    over = settings(codec)
    over["data"] |= {"root": str(root), "loading": {"workers": workers}}
    with pytest.raises(UserError, match="1 of 2 clips"):
        trained("predict", "diffusion", "talk", over)
    assert (trained.folder / "talk" / "predictions" / "synthetic_001.mp4").exists()
    (line,) = [record.getMessage() for record in caplog.records if "not written" in record.getMessage()]
    assert "Traceback" not in line and "video.mp4" in line and "\n" not in line


@pytest.mark.parametrize("reference", ["each", "progressive"])
def test_predict_draws_all_frames_of_all_clips_as_test_does(trained, codec, reference):
    over = settings(codec, reference=reference)
    trained("predict", "diffusion", "talk", over)
    folder = trained.folder / "talk" / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == ["synthetic_000.mp4", "synthetic_001.mp4"]
    for path in folder.iterdir():
        frames = list(read_frames(path))
        assert len(frames) == 8, "test_frames, and none is left out for want of a reference"
