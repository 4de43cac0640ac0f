"""Curves of real runs, and of files as kills and resumes leave them."""

import logging

import numpy as np
import pytest
from PIL import Image

from difftalk_pl import curves as module
from difftalk_pl.__main__ import main
from difftalk_pl.curves import Curve, curves, read_run, smoothed
from difftalk_pl.errors import UserError


def write(run, version, text):
    path = run / "metrics" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return run


def test_a_run_and_its_resumed_part_are_one_picture(runner, tmp_path):
    runner("fit", "autoencoder", "one")
    runner("fit", "autoencoder", "one", {"trainer": {"max_steps": 6}})
    runner("fit", "autoencoder", "two", {"model": {"init_args": {"learning_rate": 1e-4}}})
    metrics = read_run(tmp_path / "one")
    assert metrics["train/l1"].steps == [0, 1, 2, 3, 4, 5], "each step once, over both starts"
    assert metrics["val/l1"].steps == [1, 3, 5] and "epoch" not in metrics
    assert read_run(tmp_path / "two")["train/learning_rate"].values == pytest.approx([1e-4] * 4)
    out = tmp_path / "new" / "curves.png"
    assert main(["curves", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]) == 0
    picture = np.asarray(Image.open(out).convert("RGB"))
    blue, orange = (
        (np.abs(picture.astype(int) - colour).max(-1) < 40).sum() for colour in ((31, 119, 180), (255, 127, 14))
    )
    assert min(blue, orange) > 200, "a line for each run"


def test_what_a_later_start_says_of_a_step_holds(tmp_path):
    run = write(tmp_path / "run", 0, "epoch,step,loss,val\n0,0,5,\n0,1,4,\n0,2,3,9\n0,3,2,\n")
    write(run, 9, "step,test\n0,1.5\n")
    write(run, 10, "epoch,step,loss,val\n0,2,30,\n0,3,nan,\n0,4,inf,\n0,5,10,8\n0,6\n")
    found = read_run(run)
    assert found["loss"] == Curve([0, 1, 2, 5], [5, 4, 30, 10]), "back to step 2; no NaN, no unfinished line"
    assert found["val"] == Curve([2, 5], [9, 8]) and found["test"] == Curve([0], [1.5])


def test_half_a_number_at_the_end_is_no_number(tmp_path):
    whole = "step,loss\n0,5.25\n1,4.75"
    assert read_run(write(tmp_path / "cut", 0, whole))["loss"] == Curve([0], [5.25]), "it may have been 4.758"
    assert read_run(write(tmp_path / "whole", 0, whole + "\n"))["loss"] == Curve([0, 1], [5.25, 4.75])
    run = write(tmp_path / "empty", 0, "")
    write(run, 1, "step,loss\n")
    write(run, 2, "step,loss\r\n0,1\r\n")
    assert read_run(run) == {"loss": Curve([0], [1.0])}


def test_folders_without_a_number_are_not_looked_at(tmp_path):
    run = write(tmp_path / "run", "x", "step,loss\n0,1\n")
    with pytest.raises(UserError, match="run: no metrics/version_"):
        read_run(run)
    write(run, "1_old", "step,loss\n0,2\n")
    write(run, 1, "step,loss\n0,3\n")
    assert read_run(run)["loss"] == Curve([0], [3.0])


def test_the_message_counts_in_english(tmp_path, caplog):
    one = write(tmp_path / "one", 0, "step,val/b\n0,1\n")
    two = write(tmp_path / "two", 0, "step,val/b,val/c\n0,1,1\n")
    with caplog.at_level(logging.INFO, logger=module.__name__):
        curves([one], tmp_path / "x.png")
        curves([one, two], tmp_path / "y.png")
    said = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert said == ["1 metric of 1 run", "2 metrics of 2 runs"]


def test_smoothing_keeps_a_constant_and_follows_a_step():
    assert smoothed([3.0] * 5, 0.9) == pytest.approx([3.0] * 5)
    assert smoothed([1.0, 2.0, 4.0], 0.5) == pytest.approx([1, (0.25 * 1 + 0.5 * 2) / 0.75, (0.125 + 0.5 + 2) / 0.875])
    assert smoothed([1.0, 7.0], 0) == [1.0, 7.0]


def test_panels_are_the_metrics_that_match(tmp_path):
    run = write(tmp_path / "run", 0, "step,train/a,val/b,val/c\n0,1,1,1\n1,2,2,2\n")
    curves([run], tmp_path / "all.png")
    curves([run], tmp_path / "some.png", only="val/*", log_scale=True)
    all_, some = (Image.open(tmp_path / f"{name}.png").size for name in ("all", "some"))
    assert all_[0] / some[0] == pytest.approx(3 / 2, rel=0.01)


@pytest.mark.parametrize(
    "options, said",
    [({"only": "vla/*"}, r"no metric of .*run matches 'vla/\*'; logged: val/b"), ({"smooth": 1.0}, "smooth 1.0")],
)
def test_wrong_wishes_are_answered_in_one_line(tmp_path, options, said):
    run = write(tmp_path / "run", 0, "step,val/b\n0,1\n")
    with pytest.raises(UserError, match=said):
        curves([run], tmp_path / "x.png", **options)


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["curves", str(tmp_path / "nothing"), "--out", str(tmp_path / "x.png")]) == 1
    assert "nothing: no metrics/version_*/metrics.csv" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
