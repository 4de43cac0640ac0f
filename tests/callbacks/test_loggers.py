"""The same numbers on every logger, and one run of W&B for one run folder."""

import csv
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from google.protobuf.json_format import MessageToDict
from lightning.pytorch.utilities import rank_zero_only

from difftalk_pl import revision as revisions
from difftalk_pl.callbacks.loggers import ID_FILE, RunWandbLogger
from tests.wandb_records import commits, config, files, history, read_wandb, runs, summary

PROJECT = Path(__file__).parents[2]
TENSORBOARD = {
    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "${run}", "name": "tensorboard"},
}
FEW = {"val_frames": 4, "test_frames": 4}
Points = dict[str, dict[int, float]]  # metric -> step -> value


def csv_points(run: Path) -> Points:
    points: Points = {}
    for file in run.glob("metrics/version_*/metrics.csv"):
        for row in csv.DictReader(file.open()):
            for key, value in row.items():
                if key != "step" and value:
                    points.setdefault(key, {})[int(row["step"])] = float(value)
    return points


def tensorboard_run(run: Path) -> tuple[Points, dict[str, Any]]:
    """Scalars, and the flat configuration of the tab HPARAMS, whose metric of its own is left out."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (folder,) = run.glob("tensorboard/version_*")
    events = accumulator(str(folder)).Reload()
    content = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    values = {key: MessageToDict(value) for key, value in content.session_start_info.hparams.items()}
    tags = set(events.Tags()["scalars"]) - {"hp_metric"}
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}, values


def wandb_points(run: Path) -> Points:
    points: Points = {}
    for row in history(read_wandb(run)):
        for key, value in row.items():
            if isinstance(value, (int, float)) and not key.startswith(("_", "trainer/")):
                points.setdefault(key, {})[row["trainer/global_step"]] = value
    return points


def test_three_loggers_hold_the_same_numbers_and_the_configuration(runner):
    runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 3, "logger+": [TENSORBOARD]}, "data": FEW})
    run = runner.folder / "vq"
    points = csv_points(run)
    assert set(points["train/l1"]) == {0, 1, 2} and "val/l1" in points
    events, hyperparameters = tensorboard_run(run)
    for others in (events, wandb_points(run)):
        assert {name: set(values) for name, values in others.items()} == {
            name: set(values) for name, values in points.items()
        }
        for name, values in points.items():
            assert others[name] == pytest.approx(values, rel=1e-6)
    records, git = read_wandb(run), revisions.revision()
    assert summary(records)["train/l1"] == pytest.approx(points["train/l1"][2])
    for found in (config(records), yaml.unsafe_load((run / "metrics" / "version_0" / "hparams.yaml").read_text())):
        assert (found["trainer"]["max_steps"], found["run"], found["git"]) == (3, str(run), git)
    assert hyperparameters["trainer/max_steps"] == 3 and hyperparameters["git"] == str(git)


def test_the_sheet_of_a_validation_is_in_the_run_of_wandb(runner):
    runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 2}, "data": FEW})
    records = read_wandb(runner.folder / "vq")
    (found,) = [row["samples"] for row in history(records) if "samples" in row]
    assert found["_type"].startswith("image") and any(path.endswith(".png") for path in files(records))


def test_the_revision_is_in_the_first_line_of_the_configuration_and_is_that_of_git(runner):
    runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 1}, "data": FEW})
    text = (runner.folder / "vq" / "config.yaml").read_text()
    assert text.splitlines()[0].endswith(f"git {revisions.revision() or 'unknown'}")
    assert yaml.safe_load(text)["trainer"]["max_steps"] == 1
    if (PROJECT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert commits(read_wandb(runner.folder / "vq")) == [head.stdout.strip()]
        assert head.stdout.startswith(str(revisions.revision()).removesuffix("-dirty"))


def test_a_restart_validate_and_test_go_on_with_the_run_and_its_configuration(runner):
    def go(command, run, steps):
        runner(command, "autoencoder", run, {"trainer": {"max_steps": steps}, "data": FEW})
        time.sleep(1)  # names of offline runs have whole seconds

    go("fit", "vq", 1)
    run = runner.folder / "vq"
    name = (run / ID_FILE).read_text().strip()
    go("fit", "vq", 2)
    written = (run / "config.yaml").read_text()
    go("validate", "vq", 1)
    go("test", "vq", 1)
    records = read_wandb(run)
    assert runs(records) == [(name, False), *[(name, True)] * 3], "only the first one was not told"
    assert config(records)["trainer"]["max_steps"] == 2, "test and validate keep the fit's"
    assert (run / "config.yaml").read_text() == written
    kept = yaml.unsafe_load(sorted((run / "metrics").glob("version_*/hparams.yaml"))[-1].read_text())
    assert kept["trainer"]["max_steps"] == 1, "a new folder of CSV has none yet"
    go("fit", "other", 1)
    assert runs(read_wandb(runner.folder / "other"))[0][0] != name


def test_a_test_alone_tells_its_configuration(runner):
    runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 1}, "data": FEW})
    for command in ("test", "validate"):
        runner(command, "autoencoder", command, {"ckpt_path": str(runner.checkpoint("vq")), "data": FEW})
        run = runner.folder / command
        assert config(read_wandb(run))["ckpt_path"] == str(runner.checkpoint("vq"))
        assert not (run / "config.yaml").exists()


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens a logger of tmp_path, and closes its run."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")  # put back afterwards: the logger sets it

    def opened(**arguments):
        logger = RunWandbLogger(save_dir=tmp_path, project="p", offline=True, **arguments)
        assert not logger.resumed
        name = logger.experiment.id
        assert logger.experiment.id == name == logger.version
        wandb.finish()
        return name, logger.resumed

    return opened


def test_an_id_is_kept_once_a_run_is_open_and_what_is_given_comes_first(opened, tmp_path, monkeypatch):
    RunWandbLogger(save_dir=tmp_path, offline=True)
    assert not list(tmp_path.iterdir())
    first, resumed = opened()
    assert not resumed and opened() == (first, True)
    assert opened(version="mine") == ("mine", False) and opened() == ("mine", True)
    wandb.teardown()  # it reads the environment once a process
    monkeypatch.setenv("WANDB_RUN_ID", "sweep")
    assert opened() == ("sweep", False)
    assert not list(tmp_path.glob(".*"))


def test_other_processes_and_disabled_runs_keep_no_id(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    _ = RunWandbLogger(save_dir=tmp_path, offline=True).experiment.id
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert RunWandbLogger(save_dir=tmp_path, mode="disabled").experiment.disabled
    wandb.finish()
    assert not (tmp_path / ID_FILE).exists()
