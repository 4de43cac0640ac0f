"""table on results that are written by hand: what is marked, what is missing, what cannot be compared."""

import csv
import logging
import shutil
import subprocess
import sys
import time

import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.paper_tables import TABLES
from difftalk_pl.evaluation.table import table
from difftalk_pl.evaluation.table_formats import MEASURES
from tests.tables import method, rows, shown, write

TRUTH = method(psnr=None, ssim=1.0, lpips=0.0, sync_offset=0.0, sync_confidence=9.0)
OURS = {
    "model": method(psnr=34.0, ssim=0.95, lpips=0.03, sync_offset=-1.0, sync_confidence=6.0),
    "other": method(psnr=33.0, ssim=0.96, lpips=None, sync_offset=3.0, sync_confidence=2.0),
    "ground truth": TRUTH,
    "codec": method(psnr=40.0, ssim=0.99, lpips=0.01, sync_offset=0.0, sync_confidence=8.5),
}
THEIRS = {
    "ground truth": TRUTH,
    "model": method(psnr=33.5, ssim=0.94, lpips=0.04, sync_offset=0.5, sync_confidence=7.0),
}


@pytest.fixture
def ours(tmp_path):
    return write(tmp_path / "ours", OURS)


@pytest.fixture
def theirs(tmp_path):
    return write(tmp_path / "theirs", THEIRS)


def test_bounds_stand_on_top_and_only_methods_are_marked(ours, capsys):
    found = rows(shown(capsys, ours))
    assert list(found)[2:] == ["ground truth", "codec", "model", "other"]
    assert found["method"] == ["PSNR ↑", "SSIM ↑", "LPIPS ↓", "SyncNet: offset / confidence ↑", "clips"]
    assert found["ground truth"] == ["–", "1.000", "0.000", "0 / 9.000", "2"]
    assert found["codec"] == ["40.00", "0.990", "0.010", "0 / 8.500", "2"]
    assert found["model"] == ["**34.00**", "<u>0.950</u>", "0.030", "-1 / **6.000**", "2"]
    assert found["other"] == ["<u>33.00</u>", "**0.960**", "–", "3 / <u>2.000</u>", "2"]


def test_the_control_is_no_competitor(tmp_path, capsys):
    methods = {"model": method(psnr=30.0), "shuffled audio": method(psnr=31.0)}
    found = rows(shown(capsys, write(tmp_path / "run", methods)))
    assert found["model"][0] == "30.00" and found["shuffled audio"][0] == "31.00"


def test_runs_of_one_protocol_are_marked_together_and_share_their_ground_truth(ours, theirs, capsys):
    found = rows(shown(capsys, ours, theirs / "results.json", methods="ground truth,model", metrics="sync,psnr"))
    assert list(found)[2:] == ["ground truth", "ours: model", "theirs: model"]
    assert found["ours: model"][:2] == ["-1 / <u>6.000</u>", "**34.00**"]
    assert found["theirs: model"][:2] == ["0.50 / **7.000**", "<u>33.50</u>"]


def test_equal_printed_values_share_their_mark(tmp_path, capsys):
    run = write(tmp_path / "run", {"a": method(psnr=30.001), "b": method(psnr=30.004), "c": method(psnr=29.0)})
    found = rows(shown(capsys, run))
    assert [found[name][0] for name in "abc"] == ["**30.00**", "**30.00**", "<u>29.00</u>"]


def test_what_is_alike_in_several_runs_stands_once_and_what_is_not_names_its_run(ours, tmp_path, capsys):
    same = write(tmp_path / "same", {"codec": OURS["codec"], "ground truth": method(psnr=None, ssim=0.9)})
    found = rows(shown(capsys, ours, same))
    assert list(found)[2:6] == ["ours: ground truth", "same: ground truth", "codec", "ours: model"]


def test_numbers_near_a_target_are_marked_by_their_distance(tmp_path, capsys):
    jitter = {"still": 0.9, "shaky": 1.1, "wild": 2.0, "good": 1.01}
    run = write(tmp_path / "run", {name: method(jitter_pixels=value) for name, value in jitter.items()})
    found = rows(shown(capsys, run))
    assert found["method"][0] == "pixel jitter → 1"
    assert [found[name][0] for name in jitter] == ["<u>0.900</u>", "<u>1.100</u>", "2.000", "**1.010**"]


def test_other_protocols_stand_apart_and_the_differing_keys_are_named(ours, tmp_path, capsys, caplog):
    other = write(tmp_path / "other", THEIRS, {"frame_size": 256, "sync": {"crop": "whole_frame"}})
    with caplog.at_level(logging.WARNING):
        text = shown(capsys, ours, other)
    found = rows(text)
    assert found["other: model"][0] == "33.50", "alone under its protocol, it competes with nobody"
    assert found["ours: model"][0] == "**34.00**"
    assert {"ours: ground truth", "other: ground truth"} <= set(found), "one under each protocol"
    assert "sync.crop" in caplog.text and "frame_size" not in caplog.text and "not comparable" in text
    assert text.count("*protocol ") == 2


def test_long_values_that_differ_in_their_last_letter_are_named(tmp_path, capsys):
    one, other = (write(tmp_path / f"run{end}", {"model": method(psnr=1.0)}, {"cut": "f" * 90 + end}) for end in "ab")
    assert 'cut (runa: "fff' in shown(capsys, one, other)


def test_what_one_protocol_does_not_say_is_named(ours, tmp_path, capsys):
    other = write(tmp_path / "other", THEIRS, {"frame_size": 256, "sync": None, "mask": None})
    text = shown(capsys, ours, other)
    assert "mask (ours: not said, other: null)" in text and 'sync (ours: {"crop": "face\\_crop"}, other: null)' in text


def test_models_seeds_and_files_do_not_part_what_was_measured_alike(tmp_path, capsys):
    def protocol(seed, file, steps=20):
        return {
            "data": {"fps": 25},
            "measures": {"sync": {"file": file}},
            "generation": {"seed": seed, "steps": steps},
        }

    one = write(tmp_path / "one", THEIRS, protocol(1, "x.model"), model={"weights": "abc"})
    two = write(tmp_path / "two", OURS, protocol(2, "y.model"), model={"weights": "def"})
    text = shown(capsys, one, two, methods="model")
    assert rows(text)["two: model"][0] == "**34.00**" and rows(text)["one: model"][0] == "<u>33.50</u>"
    assert "not comparable" not in text and "Other seeds, the same protocol: generation.seed (one: 1, two: 2)" in text
    assert "Generated" not in text and "file" not in text


def test_other_ways_to_generate_are_compared_and_named(tmp_path, capsys):
    parts = {"data": {"fps": 25}, "measures": {"lpips": None}}
    one = write(tmp_path / "one", THEIRS, {**parts, "generation": {"seed": 1, "steps": 12}})
    two = write(tmp_path / "two", OURS, {**parts, "generation": {"seed": 1, "steps": 200}})
    text = shown(capsys, one, two, methods="model")
    assert rows(text)["two: model"][0] == "**34.00**" and rows(text)["one: model"][0] == "<u>33.50</u>"
    assert "Generated differently: generation.steps (one: 12, two: 200)" in text and "not comparable" not in text
    other = write(tmp_path / "other", OURS, {**parts, "data": {"fps": 30}, "generation": {"seed": 1, "steps": 9}})
    text = shown(capsys, one, other, methods="model")
    assert "not comparable: data.fps (one: 25, other: 30)" in text and "generation" not in text


def test_other_clips_stand_apart_though_the_protocol_is_the_same(ours, tmp_path, capsys):
    other = write(tmp_path / "other", {"model": method(clips=("a", "c"), psnr=35.0)})
    text = shown(capsys, ours, other)
    assert "other clips than ours, not comparable: other" in text and "different protocols" not in text
    assert rows(text)["other: model"][0] == "35.00" and rows(text)["ours: model"][0] == "**34.00**"


def test_failed_clips_are_counted_with_a_reason(tmp_path, capsys):
    failed = {"sync_offset": {"b": "no face"}, "sync_confidence": {"b": "no face"}, "psnr": {"b": "broken | file"}}
    broken = method(failed, psnr=30.0, sync_offset=1.0, sync_confidence=5.0)
    run = write(tmp_path / "run", {"model": broken, "codec": broken})
    text = shown(capsys, run)
    assert rows(text)["model"][-1] == "1 (1 failed)"
    together = "codec, model: sync\\_offset, sync\\_confidence failed on 1 of 2 clips, b: no face"
    assert together in text and "broken \\| file" in text and text.count("\n\n") == 2, "one note for one reason"


def test_a_method_that_failed_on_all_clips_stands_with_dashes(tmp_path, capsys):
    failed = method({"psnr": {"a": "cut off", "b": "cut off"}}, psnr=None)
    run = write(tmp_path / "run", {"model": failed, "other": method(psnr=30.0)})
    found = rows(shown(capsys, run))
    assert found["model"] == ["–", "0 (2 failed)"] and found["other"] == ["30.00", "2"]
    text = shown(capsys, write(tmp_path / "alone", {"model": failed}))
    assert rows(text)["model"] == ["–", "0 (2 failed)"] and "psnr failed on 2 of 2 clips, a: cut off" in text


def test_undefined_clips_are_counted_beside_failed_ones(tmp_path, capsys):
    found = method({"lmd": {"b": "no face"}}, clips=("a", "b", "c"), lmd=2.0)
    found["per_clip"]["c"]["lmd"], found["undefined"]["lmd"] = None, 2
    text = shown(capsys, write(tmp_path / "run", {"model": found}))
    assert "lmd failed on 1 of 3 clips" in text and "lmd undefined on 1 of 3 clips" in text


def test_rows_of_the_paper_are_labelled_and_never_marked(ours, capsys):
    found = rows(shown(capsys, ours, paper="table3", set="B"))
    assert found["DiffTalk (paper)"][:4] == ["34.01", "0.950", "0.020", "-1 / 5.639"]
    assert found["ground truth (paper)"][:4] == ["–", "–", "–", "-2 / 7.924"]
    assert found["model"][0] == "**34.00**", "the paper's 34.01 takes no part"
    titles = [name for name in found if "another protocol: not comparable" in name]
    assert titles == ["*paper, table 3, set B; another protocol: not comparable*"]


def test_without_a_choice_all_of_the_papers_sets_and_tables_are_shown(ours, capsys):
    assert shown(capsys, ours, paper="table1").count("*paper, table 1, set ") == 2
    text = shown(capsys, ours, paper="all")
    assert text.count("*paper, table ") == 6 and text.count("(paper)") == 24


def test_the_papers_numbers_have_the_sums_of_its_columns():
    """Added up from the printed tables, apart from their rows here: PSNR, SSIM, LPIPS, offset, confidence."""
    sums = {
        "table1": {"A": (67.84, 1.890, 0.048, 2, 21.381), "B": (65.43, 1.849, 0.062, 2, 20.137)},
        "table2": {"A": (68.12, 1.892, 0.047, 4, 20.711), "B": (65.75, 1.850, 0.061, 5, 20.333)},
        "table3": {"A": (135.30, 4.032, 0.494, -11, 39.870), "B": (148.80, 4.436, 0.224, -14, 35.042)},
    }
    for name, sets in TABLES.items():
        for test_set, found in sets.items():
            columns = list(zip(*found))[1:]
            added = [sum(value or 0 for value in column) for column in columns]
            assert added == pytest.approx(sums[name][test_set])


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


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(ours, tmp_path, capsys):
    odd = {r"a_b\c & 50% #1 {x} ~ ^ $2$ <|>": method({"psnr": {"a": "…→ “no”"}}, psnr=30.0), "[c]": OURS["codec"]}
    other = write(tmp_path / "other_run", odd, {"frame_size": 128})
    text = shown(capsys, ours, other, format="latex", intervals=True, paper="all")
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]


def test_results_of_the_first_format_are_read(tmp_path, capsys):
    old = {"overall": {"psnr": 30.0}, "undefined": {"psnr": 0}, "per_clip": {"a": {"psnr": 30.0, "frames": 9}}}
    runs = [write(tmp_path / name, {"model": old}, {"weights": name, "fps": 25}, format=1) for name in ("x", "y")]
    text = shown(capsys, *runs)
    assert rows(text)["x: model"] == ["**30.00**", "1"] and "not comparable" not in text


def test_measures_are_those_of_the_judge():
    from difftalk_pl.evaluation.judge import ALL

    assert {*ALL} == {*MEASURES}


def test_nothing_heavy_is_imported_and_help_comes_at_once():
    loaded = "print([x for x in ('torch', 'lightning', 'scipy') if x in sys.modules])"
    code = f"import sys, difftalk_pl.evaluation.table as _; {loaded}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    started = time.monotonic()
    found = subprocess.run([sys.executable, "-m", "difftalk_pl", "table", "--help"], capture_output=True, check=True)
    assert time.monotonic() - started < 2 and b"--paper" in found.stdout


def test_what_cannot_be_shown_is_said(ours, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"methods": {"model": {"psnr": 1}}}')
    for arguments, options, message in (
        ([tmp_path / "no"], {}, r"no: no such file"),
        ([tmp_path], {}, r"results\.json: no such file"),
        ([tmp_path / "broken.json"], {}, r"broken\.json: not JSON"),
        ([tmp_path / "other.json"], {}, r"other\.json: is not a results\.json .* no methods\.model\.overall; give"),
        ([write(tmp_path / "new", OURS, format=3)], {}, r"format 3"),
        ([ours], {"metrics": "psnr,beauty"}, r"--metrics beauty: unknown; there are psnr"),
        ([ours], {"methods": "nobody"}, r"--methods nobody.*model"),
    ):
        with pytest.raises(UserError, match=message):
            table(arguments, **options)
