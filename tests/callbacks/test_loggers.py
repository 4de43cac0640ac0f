"""The same numbers on every logger, and one run of W&B for one run folder."""

import time

import pytest
import wandb
import yaml

from difftalk_pl import revision as revisions
from difftalk_pl.callbacks.loggers import ID_FILE, RunWandbLogger
from tests.callbacks.test_evaluation import logged
from tests.wandb_records import config, history, read_wandb, runs

FEW = {"val_frames": 4, "test_frames": 4}


def test_loggers_hold_the_same_numbers_and_the_configuration(runner):
    runner("fit", "autoencoder", "vq", {"trainer": {"max_steps": 3}, "data": FEW})
    run, points = runner.folder / "vq", {}
    records = read_wandb(run)
    for row in history(records):
        known = {key: value for key, value in row.items() if isinstance(value, (int, float)) and key[0] not in "_t"}
        points.setdefault(row["trainer/global_step"], {}).update(known)
    written = {step: {key: row[key] for key in row if key[0] != "t"} for step, row in logged(run).items()}
    assert set(written) == {0, 1, 2} and any("val/l1" in row for row in written.values())
    assert points == {step: pytest.approx(row, rel=1e-6) for step, row in written.items()}
    git = revisions.revision()
    assert (config(records)["trainer"]["max_steps"], config(records)["git"]) == (3, git)
    text = (run / "config.yaml").read_text()
    assert text.splitlines()[0].endswith(f"git {git or 'unknown'}") and yaml.safe_load(text)["run"] == str(run)


def test_a_restart_and_a_test_go_on_with_the_run_and_its_configuration(runner):
    def go(command, steps):
        runner(command, "autoencoder", "vq", {"trainer": {"max_steps": steps}, "data": FEW})
        time.sleep(1)  # names of offline runs have whole seconds

    go("fit", 1)
    run = runner.folder / "vq"
    name = (run / ID_FILE).read_text().strip()
    go("fit", 2)
    written = (run / "config.yaml").read_text()
    go("test", 1)
    records = read_wandb(run)
    assert runs(records) == [(name, False), (name, True), (name, True)], "only the first one was not told"
    assert config(records)["trainer"]["max_steps"] == 2, "test keeps the configuration of fit"
    assert (run / "config.yaml").read_text() == written


def test_an_id_is_kept_and_one_that_is_given_comes_first(tmp_path, monkeypatch):
    def opened(**arguments):
        logger = RunWandbLogger(save_dir=tmp_path, project="p", offline=True, **arguments)
        name = logger.experiment.id
        wandb.finish()
        return name, logger.resumed

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")  # put back afterwards: the logger sets it
    first, resumed = opened()
    assert not resumed and opened() == (first, True)
    assert opened(version="mine") == ("mine", False) and opened() == ("mine", True)
    wandb.teardown()  # it reads the environment once a process
    monkeypatch.setenv("WANDB_RUN_ID", "sweep")
    assert opened() == ("sweep", False)
