"""Scores of two real processes are those of one: for 7 clips, and for 1, where a process has none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from difftalk_pl.data.synthetic.dataset import synthesize
from difftalk_pl.evaluation.judge import ALL
from tests.backbones import write_backbone
from tests.callbacks.test_evaluation import evaluated, results
from tests.runner import own_environment
from tests.wandb_records import files, history, read_wandb

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """Nine drawn people, 1.2 s each: seven to test."""
    root = tmp_path_factory.mktemp("nine")
    synthesize(root, clips=9, seconds=1.2, workers=1)
    return root


@pytest.fixture
def settings(runner, nine):
    """All measures, with networks whose weights are drawn."""
    runner("fit", "syncnet", "sync", {"trainer": {"max_steps": 1}})
    lpips = write_backbone(runner.folder / "drawn.pth")
    runner.data = nine
    options = {"lpips": "squeeze", "lpips_weights": str(lpips), "syncnet": str(runner.checkpoint("sync"))}
    callbacks = evaluated(every=1, clips=3, seconds=0.3, sync_crop="whole_frame", **options)
    split = {"train": ["synthetic_000"], "val": ["synthetic_001"], "test": [f"synthetic_{n:03}" for n in range(2, 9)]}
    return {"data": {"split": split, "val_frames": 8}, "trainer": {"callbacks": callbacks}}


def in_two_processes(runner, command, run, settings):
    trainer = {**settings["trainer"], "devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    config = runner.config("autoencoder", run, {**settings, "trainer": trainer})
    project = str(Path(__file__).parents[2])
    environment = own_environment(PYTHONPATH=project)
    arguments = [sys.executable, "-m", "difftalk_pl", command, "-c", str(config)]
    result = subprocess.run(
        arguments, env=environment, cwd=project, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def assert_same(one, two):
    """Every number to 1e-6, every reason, every clip in its order."""
    assert list(one) == list(two)
    for method, found in one.items():
        other = two[method]
        assert list(found["per_clip"]) == list(other["per_clip"]) and found["failed"] == other["failed"]
        for measure in ALL:
            numbers = [[clip[measure] for clip in each["per_clip"].values()] for each in (found, other)]
            numbers += [[each["overall"][measure]] for each in (found, other)]
            for ours, theirs in zip(numbers[0] + numbers[2], numbers[1] + numbers[3]):
                assert theirs == (None if ours is None else pytest.approx(ours, abs=1e-6)), (method, measure)
        for clip, curve in found["curves"].items():
            assert other["curves"][clip] == pytest.approx(curve, abs=1e-6)


@pytest.mark.parametrize("clips", [7, 1])
def test_two_processes_measure_what_one_does(runner, settings, clips):
    settings["data"]["split"]["test"] = settings["data"]["split"]["test"][:clips]
    runner("fit", "autoencoder", "vq", settings)
    runner("test", "autoencoder", "vq", settings)
    run = runner.folder / "vq"
    alone = results(run)
    (run / "results.json").unlink()
    in_two_processes(runner, "test", "vq", settings)
    together = results(run)
    assert alone["clips"]["scored"] == together["clips"]["scored"] == clips
    assert together["clips"] == alone["clips"] and together["protocol_hash"] == alone["protocol_hash"]
    codec, truth = alone["methods"]["codec"], alone["methods"]["ground truth"]
    measured = {name for found in (codec, truth) for name, value in found["overall"].items() if value is not None}
    assert measured >= {*ALL} - {"silent_motion", "opening_correlation"}, "all there is to compare"
    assert len(codec["failed"]["lmd"]) == len(codec["curves"]) == clips, "an untrained codec draws no faces"
    assert_same(alone["methods"], together["methods"])


def test_what_two_processes_log_stands_once_in_the_run_of_wandb(runner, settings):
    """A fit and a test in two processes, and the offline record of W&B read back."""
    in_two_processes(runner, "fit", "vq", settings)
    in_two_processes(runner, "test", "vq", settings)
    run = runner.folder / "vq"
    records = read_wandb(run)
    steps = history(records)
    overall = results(run)["methods"]["codec"]["overall"]
    for measure in ("psnr", "mouth_ssim", "lpips", "sync_confidence", "jitter_pixels"):
        (value,) = [row[f"test/{measure}"] for row in steps if f"test/{measure}" in row]
        assert value == pytest.approx(overall[measure], abs=1e-5)
        assert len([row for row in steps if f"val/{measure}" in row]) == 2, "once for each validation"
    kinds = {name: value["_type"] for row in steps for name, value in row.items() if isinstance(value, dict)}
    for kind in ("sheets", "differences", "sync", "codebook"):
        assert kinds[f"test/{kind}"] == "images/separated"
    assert kinds["test/videos"] == "videos"
    (table,) = [row["test/clips"] for row in steps if "test/clips" in row]
    assert table["nrows"] == 2 * 7, "ground truth and codec of every clip"
    (path,) = run.glob(f"wandb/offline-run-*/files/{table['path']}")
    content = json.loads(path.read_text())
    place = content["columns"].index("psnr")
    rows = {(row[0], row[1]): row[place] for row in content["data"]}
    per_clip = results(run)["methods"]["codec"]["per_clip"]
    assert {clip: rows[clip, "codec"] for clip in per_clip} == pytest.approx(
        {clip: values["psnr"] for clip, values in per_clip.items()}
    )
    assert any(name.startswith("media/") for name in files(records))
