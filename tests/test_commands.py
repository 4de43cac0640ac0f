"""The command line as a user meets it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from difftalk_pl.__main__ import EXAMPLES, LIGHTNING, OURS, _spelt_out, main

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def python(*arguments, **options):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_lists_every_command_with_a_line_and_imports_nothing_heavy():
    code = "import sys; from difftalk_pl.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    result = python("-c", code)
    text, modules = result.stdout.rsplit("\n[", 1)
    for name, line in {**LIGHTNING, **{name: line for name, (_, line) in OURS.items()}}.items():
        assert f"  {name} " in text and line in text
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "lightning", "numpy", "jsonargparse", "diffusers"))


def test_help_answers_within_two_seconds():
    """The bound is part of the interface; it is met a hundred times over."""
    started = time.monotonic()
    assert python("-m", "difftalk_pl", "--help").returncode == 0
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("command", sorted(OURS))
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "example: python -m difftalk_pl" in text and EXAMPLES[command].split()[0] in text
    assert "ERROR" not in text


def test_wrong_usage_exits_with_2(capsys):
    assert main([]) == 2
    assert main(["dance"]) == 2
    assert "unknown command 'dance'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["synthesize", "--out", "x", "--clipz", "3"])
    assert stop.value.code == 2


def test_failed_work_exits_with_1_and_one_line(tmp_path, capsys):
    assert main(["cache-latents", "--data", str(tmp_path), "--autoencoder", str(tmp_path / "no.ckpt")]) == 1
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and "no.ckpt: no such checkpoint" in message


def test_weights_that_are_missing_are_named_in_one_line(tmp_path, capsys):
    experiment = str(EXPERIMENTS / "demo" / "diffusion.yaml")
    over = [
        "--model.autoencoder",
        str(tmp_path / "no.ckpt"),
        "--run",
        str(tmp_path / "run"),
        "--trainer.logger",
        "false",
    ]
    assert main(["fit", "-c", experiment, *over]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith(f"difftalk_pl fit: {tmp_path / 'no.ckpt'}: no such checkpoint")


def test_both_spellings_of_an_option_are_taken(tmp_path):
    arguments = ["--out", str(tmp_path / "data"), "--clips", "1", "--seconds", "3", "--workers", "1"]
    assert main(["synthesize", *arguments, "--first-identity", "7"]) == 0
    assert (tmp_path / "data" / "clips" / "synthetic_007").exists()


def test_a_flag_stands_alone_or_takes_its_value():
    flags = {"--half", "--raw"}
    assert _spelt_out(["--half", "--out", "x", "--raw"], flags) == ["--half=true", "--out", "x", "--raw=true"]
    assert _spelt_out(["--half", "false", "--raw", "true", "y"], flags) == ["--half", "false", "--raw", "true", "y"]
    assert _spelt_out(["--half=false", "--workers", "2"], flags) == ["--half=false", "--workers", "2"]


def test_options_of_animate_are_spelt_as_its_documents_spell_them():
    from difftalk_pl.__main__ import _parse
    from difftalk_pl.animate.command import animate

    line = "--checkpoint x --video v --audio a --out o --sampler unipc --steps 7 --fps source --face 2 --no-watermark"
    given = _parse("animate", animate, [*line.split(), "--steadiness.filter", "0.3", "--paste.feather=0.1"])
    assert (given["sampler"], given["steps"], given["fps"], given["face"]) == ("unipc", 7, "source", "2")
    assert given["no_watermark"] is True and given["reference"] is None
    assert (given["steadiness"].filter, given["paste"].feather) == (0.3, 0.1)
    assert _parse("animate", animate, ["--checkpoint", "x", "--fps", "30"])["fps"] == 30
