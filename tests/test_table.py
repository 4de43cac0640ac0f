"""table on results that are written by hand: what is marked, what is missing, what cannot be compared."""

import csv
import json
import logging

import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.table import table


def method(failed=None, clips=("a", "b"), **overall):
    """As summarise writes it; a measure that failed is missing on its clips."""
    failed = failed or {}
    rows = {clip: {**{k: None if clip in failed.get(k, {}) else v for k, v in overall.items()}} for clip in clips}
    undefined = {name: sum(row[name] is None for row in rows.values()) for name in overall}
    bounds = {name: None if value is None else [value - 1, value + 1] for name, value in overall.items()}
    return {"overall": overall, "interval": bounds, "undefined": undefined, "failed": failed, "per_clip": rows}


TRUTH = method(psnr=None, ssim=1.0, lpips=0.0, sync_offset=0.0, sync_confidence=9.0)
OURS = {
    "model": method(psnr=34.0, ssim=0.95, lpips=0.03, sync_offset=-1.0, sync_confidence=6.0),
    "shuffled audio": method(psnr=33.0, ssim=0.96, lpips=None, sync_offset=3.0, sync_confidence=2.0),
    "ground truth": TRUTH,
    "codec": method(psnr=40.0, ssim=0.99, lpips=0.01, sync_offset=0.0, sync_confidence=8.5),
}
THEIRS = {
    "ground truth": TRUTH,
    "model": method(psnr=33.5, ssim=0.94, lpips=0.04, sync_offset=0.5, sync_confidence=7.0),
}


def write(folder, methods, protocol=None, **more):
    folder.mkdir(exist_ok=True)
    protocol = protocol or {"frame_size": 256, "sync": {"crop": "face_crop"}}
    (folder / "results.json").write_text(json.dumps({"format": 2, "methods": methods, "protocol": protocol} | more))
    return folder


@pytest.fixture
def ours(tmp_path):
    return write(tmp_path / "ours", OURS)


@pytest.fixture
def theirs(tmp_path):
    return write(tmp_path / "theirs", THEIRS)


def rows(text):
    """Cells by the first one."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def shown(capsys, *arguments, **options):
    table(list(arguments), **options)
    return capsys.readouterr().out


def test_bounds_stand_on_top_and_only_methods_are_marked(ours, capsys):
    found = rows(shown(capsys, ours))
    assert list(found)[2:] == ["ground truth", "codec", "model", "shuffled audio"]
    assert found["method"] == ["PSNR ↑", "SSIM ↑", "LPIPS ↓", "SyncNet: offset / confidence ↑", "clips"]
    assert found["ground truth"] == ["–", "1.000", "0.000", "0 / 9.000", "2"]
    assert found["codec"] == ["40.00", "0.990", "0.010", "0 / 8.500", "2"]
    assert found["model"] == ["**34.00**", "<u>0.950</u>", "0.030", "**-1** / **6.000**", "2"]
    assert found["shuffled audio"] == ["<u>33.00</u>", "**0.960**", "–", "<u>3</u> / <u>2.000</u>", "2"]


def test_runs_of_one_protocol_are_marked_together_and_share_their_ground_truth(ours, theirs, capsys):
    found = rows(shown(capsys, ours, theirs / "results.json", methods="ground truth,model", metrics="sync,psnr"))
    assert list(found)[2:] == ["ground truth", "ours: model", "theirs: model"]
    assert found["ours: model"][:2] == ["<u>-1</u> / <u>6.000</u>", "**34.00**"]
    assert found["theirs: model"][:2] == ["**0.50** / **7.000**", "<u>33.50</u>"]


def test_equal_printed_values_share_their_mark(tmp_path, capsys):
    run = write(tmp_path / "run", {"a": method(psnr=30.001), "b": method(psnr=30.004), "c": method(psnr=29.0)})
    found = rows(shown(capsys, run))
    assert [found[name][0] for name in "abc"] == ["**30.00**", "**30.00**", "<u>29.00</u>"]


def test_other_protocols_stand_apart_and_the_differing_keys_are_named(ours, tmp_path, capsys, caplog):
    other = write(tmp_path / "other", THEIRS, {"frame_size": 256, "sync": {"crop": "whole_frame"}})
    with caplog.at_level(logging.WARNING):
        text = shown(capsys, ours, other)
    found = rows(text)
    assert found["other: model"][0] == "33.50", "alone under its protocol, it competes with nobody"
    assert found["ours: model"][0] == "**34.00**"
    assert text.count("| ground truth |") == 2, "one under each protocol"
    assert "sync.crop" in caplog.text and "frame_size" not in caplog.text and "not comparable" in text
    assert text.count("*protocol ") == 2


def test_other_clips_are_said_though_the_protocol_is_the_same(ours, tmp_path, capsys):
    other = write(tmp_path / "other", {"model": method(clips=("a", "c"), psnr=30.0)})
    assert "other clips than ours, not comparable: other" in shown(capsys, ours, other)


def test_failed_clips_are_counted_with_a_reason(tmp_path, capsys):
    failed = {"sync_offset": {"b": "no face"}, "psnr": {"b": "broken | file"}}
    run = write(tmp_path / "run", {"model": method(failed, psnr=30.0, sync_offset=1.0)})
    text = shown(capsys, run)
    assert rows(text)["model"][-1] == "1 (1 failed)"
    assert "sync\\_offset failed on 1 of 2, b: no face" in text and "broken \\| file" in text


def test_rows_of_the_paper_are_labelled_and_never_marked(ours, capsys):
    found = rows(shown(capsys, ours, paper="table3", set="B"))
    assert found["DiffTalk (paper)"][:4] == ["34.01", "0.950", "0.020", "-1 / 5.639"]
    assert found["ground truth (paper)"][:4] == ["–", "–", "–", "-2 / 7.924"]
    assert found["model"][0] == "**34.00**", "the paper's 34.01 takes no part"
    assert any("another protocol: not comparable" in name for name in found)


def test_latex_escapes_marks_and_prints_intervals(tmp_path, capsys):
    run = write(tmp_path / "run", {"a_b & 50%": method(psnr=30.0), "[c]": method(psnr=29.0)})
    text = shown(capsys, run, format="latex", intervals=True)
    assert r"a\_b \& 50\% & \textbf{30.00} [29.00, 31.00] & 2 \\" in text
    assert r"{[}c] & \underline{29.00} [28.00, 30.00] & 2 \\" in text
    assert text.startswith(r"\begin{tabular}{lrr}") and r"PSNR $\uparrow$" in text


def test_csv_holds_all_digits_and_nothing_for_nothing(tmp_path):
    run = write(tmp_path / "run", {"model": method(psnr=30.123456789, lpips=None)})
    out = tmp_path / "deep" / "table.csv"
    assert main(["table", str(run), "--format", "csv", "--metrics", "psnr,lpips", "--out", str(out)]) == 0
    (row,) = csv.DictReader(out.open())
    assert (row["run"], row["method"], row["psnr"], row["lpips"]) == ("run", "model", "30.123456789", "")


def test_results_of_the_first_format_are_read(tmp_path, capsys):
    old = {"overall": {"psnr": 30.0}, "undefined": {"psnr": 0}, "per_clip": {"a": {"psnr": 30.0, "frames": 9}}}
    assert rows(shown(capsys, write(tmp_path / "old", {"model": old}, format=1)))["model"] == ["30.00", "1"]


def test_what_cannot_be_shown_is_said(ours, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for arguments, options, message in (
        ([tmp_path / "no"], {}, r"no: no such file"),
        ([tmp_path], {}, r"results\.json: no such file"),
        ([tmp_path / "broken.json"], {}, r"broken\.json: not JSON"),
        ([write(tmp_path / "new", OURS, format=3)], {}, r"format 3"),
        ([ours], {"metrics": "psnr,beauty"}, r"--metrics beauty: unknown; there are psnr"),
        ([ours], {"methods": "nobody"}, r"--methods nobody.*model"),
    ):
        with pytest.raises(UserError, match=message):
            table(arguments, **options)
