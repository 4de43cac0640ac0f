"""table on results that are written by hand: what is marked, what is missing, what cannot be compared."""

import csv
import io
import shutil
import subprocess

import pandas
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import ALL
from difftalk_pl.evaluation.paper_tables import TABLES
from difftalk_pl.evaluation.table import MEASURES, table
from tests.evaluation.tables import method, rows, shown, write

MEASURES_OF_THE_PAPER = ("psnr", "ssim", "lpips", "sync_offset", "sync_confidence")
TRUTH = method(psnr=None, ssim=1.0, lpips=0.0, sync_offset=0.0)
OURS = {
    "model": method(psnr=34.0, ssim=0.95, lpips=0.03, sync_offset=-1.0),
    "other": method(psnr=33.0, ssim=0.96, lpips=None, sync_offset=3.0),
    "shuffled audio": method(psnr=35.0, ssim=0.97, lpips=0.01, sync_offset=9.0),
    "ground truth": TRUTH,
    "codec": method(psnr=40.0, ssim=0.99, lpips=0.01, sync_offset=0.0),
}


@pytest.fixture
def ours(tmp_path):
    return write(tmp_path / "ours", OURS)


def test_bounds_stand_on_top_and_only_methods_are_marked(ours, capsys):
    found = rows(shown(capsys, ours))
    assert list(found)[2:] == ["ground truth", "codec", "model", "other", "shuffled audio"]
    assert found["method"] == ["PSNR ↑", "SSIM ↑", "LPIPS ↓", "sync offset", "clips"]
    assert found["ground truth"] == ["–", "1.000", "0.000", "0.00", "2"]
    assert found["codec"] == ["40.00", "0.990", "0.010", "0.00", "2"]
    assert found["model"] == ["**34.00**", "0.950", "0.030", "-1.00", "2"]
    assert found["other"] == ["33.00", "**0.960**", "–", "3.00", "2"]
    assert found["shuffled audio"][:2] == ["35.00", "0.970"]


def test_runs_of_one_protocol_compete_and_share_their_ground_truth(ours, tmp_path, capsys):
    generation = {"generation": {"steps": 9}}
    theirs = write(tmp_path / "theirs", {"ground truth": TRUTH, "model": method(psnr=34.001, ssim=0.94)}, generation)
    text = shown(capsys, ours, theirs / "results.json", metrics="ssim,psnr")
    found = rows(text)
    assert list(found)[2:4] == ["ground truth", "ours: codec"] and "theirs: ground truth" not in found
    assert found["ours: model"][:2] == ["0.950", "**34.00**"]
    assert found["theirs: model"][:2] == ["0.940", "**34.00**"], "printed values that are equal share the mark"
    assert "Generated differently: generation" in text and "not comparable" not in text


def test_numbers_near_a_target_are_marked_by_their_distance(tmp_path, capsys):
    run = write(
        tmp_path / "run", {n: method(jitter_pixels=v) for n, v in {"still": 0.9, "wild": 2.0, "good": 1.01}.items()}
    )
    found = rows(shown(capsys, run))
    assert (
        found["method"][0] == "pixel jitter (to 1)" and found["good"][0] == "**1.010**" and found["still"][0] == "0.900"
    )


@pytest.mark.parametrize("differs", ["protocol", "clips"])
def test_what_is_not_comparable_does_not_compete_and_the_note_says_why(ours, tmp_path, capsys, differs):
    clips = ("a", "c") if differs == "clips" else ("a", "b")
    data = {"data": {"frame_size": 256, "mask": "x"}} if differs == "protocol" else {}
    other = write(tmp_path / "other", {"model": method(clips=clips, psnr=35.0)}, data)
    text = shown(capsys, ours, other, metrics="psnr")
    lines = {line.split("|")[2].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "**" not in lines["other: model"] and "**34.00**" in lines["ours: model"]
    note = 'data.mask "not given" / "x" (ours, other)' if differs == "protocol" else "different clips"
    assert "not comparable" in text and note.replace("_", "\\_") in text


def test_a_mean_that_leaves_out_clips_does_not_win(tmp_path, capsys):
    lucky = method({"psnr": {"b": "cut | off"}, "ssim": {"b": "cut | off"}}, psnr=35.0, ssim=0.9)
    methods = {"lucky": lucky, "good": method(psnr=31.0, ssim=0.8), "fair": method(psnr=30.0, ssim=0.7)}
    text = shown(capsys, write(tmp_path / "run", methods))
    assert [rows(text)[name][0] for name in methods] == ["35.00", "**31.00**", "30.00"]
    assert rows(text)["lucky"][-1] == "1 (1 failed)"


def test_rows_of_the_paper_are_labelled_and_never_marked(ours, capsys):
    text = shown(capsys, ours, paper="table3", metrics="psnr,sync_confidence")
    lines = [line for line in text.splitlines() if "(paper)" in line]
    assert len(lines) == 12 and all("not comparable" in line and "**" not in line for line in lines)
    assert sum("DiffTalk (paper)" in line and "34.01" in line and "5.639" in line for line in lines) == 1
    assert shown(capsys, ours, paper="all").count("(paper)") == 24


def test_the_papers_numbers_have_the_sums_of_its_columns():
    """Added up from the printed tables, apart from their rows here: PSNR, SSIM, LPIPS, offset, confidence."""
    sums = {
        ("table1", "A"): (67.84, 1.890, 0.048, 2, 21.381),
        ("table1", "B"): (65.43, 1.849, 0.062, 2, 20.137),
        ("table2", "A"): (68.12, 1.892, 0.047, 4, 20.711),
        ("table2", "B"): (65.75, 1.850, 0.061, 5, 20.333),
        ("table3", "A"): (135.30, 4.032, 0.494, -11, 39.870),
        ("table3", "B"): (148.80, 4.436, 0.224, -14, 35.042),
    }
    found = pandas.read_csv(io.StringIO(TABLES)).groupby(["table", "set"])[list(MEASURES_OF_THE_PAPER)].sum()
    for name, expected in sums.items():
        assert found.loc[name].tolist() == pytest.approx(expected)


def test_csv_holds_all_digits_and_nothing_for_nothing(tmp_path):
    run = write(tmp_path / "run", {"model": method(psnr=30.123456789, lpips=None)})
    out = tmp_path / "deep" / "table.csv"
    arguments = ["--format", "csv", "--metrics", "psnr,lpips", "--intervals", "true", "--out", str(out)]
    assert main(["table", str(run), *arguments]) == 0
    (row,) = csv.DictReader(io.StringIO(out.read_text()))
    assert (row["run"], row["method"], row["psnr"], row["lpips"]) == ("run", "model", "30.123456789", "")
    assert float(row["psnr_low"]) == pytest.approx(29.123456789) and row["clips"] == "2"


def test_latex_escapes_and_compiles_with_intervals(ours, tmp_path, capsys):
    odd = {r"a_b\c & 50% #1 {x} $2$": method({"psnr": {"a": "no_face"}}, psnr=30.0), "[c]": OURS["codec"]}
    other = write(tmp_path / "other_run", odd, {"data": {"frame_size": 128}})
    text = shown(capsys, ours, other, format="latex", intervals=True, paper="all")
    assert r"\textbf{34.00} [33.00, 35.00]" in text and r"50\% \#1" in text and r"PSNR $\uparrow$" in text
    if shutil.which("pdflatex") is None:
        return
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]


def test_measures_are_those_of_the_judge():
    assert list(MEASURES) == list(ALL)


def test_what_cannot_be_shown_is_one_line(ours, tmp_path, capsys):
    files = {"cut": "{", "other": '{"methods": {"model": {"psnr": 1}}}', "list": "[]"}
    for name, text in files.items():
        (tmp_path / f"{name}.json").write_text(text)
        assert main(["table", str(tmp_path / f"{name}.json")]) == 1
        assert "is not a results.json of this project" in capsys.readouterr().err
    for arguments, options, message in (
        ([tmp_path / "no"], {}, r"no: no such file"),
        ([write(tmp_path / "new", OURS, format=3)], {}, r"format 3"),
        ([ours], {"metrics": "psnr,beauty"}, r"--metrics beauty: unknown; there are psnr"),
    ):
        with pytest.raises(UserError, match=message):
            table(arguments, **options)
