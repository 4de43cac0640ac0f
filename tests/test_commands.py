"""The command line as a user meets it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from difftalk_pl.__main__ import EXAMPLES, LIGHTNING, OURS, main, parse

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def python(*arguments, **options):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_lists_every_command_with_a_line_and_imports_nothing_heavy():
    code = "import sys; from difftalk_pl.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    text, modules = python("-c", code).stdout.rsplit("\n[", 1)
    for name, line in (LIGHTNING | {name: line for name, (_, line) in OURS.items()}).items():
        assert f"  {name} " in text and line in text
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "lightning", "numpy", "jsonargparse", "diffusers"))


def test_help_answers_within_two_seconds():
    """The bound is part of the interface; it is met with room."""
    started = time.monotonic()
    assert python("-m", "difftalk_pl", "--help").returncode == 0
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("command", sorted(OURS))
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert f"example: python -m difftalk_pl {command} {EXAMPLES[command]}" in text
    assert "ERROR" not in text


def test_wrong_usage_exits_with_2(capsys):
    assert main([]) == 2
    assert main(["dance"]) == 2
    assert "unknown command 'dance'" in capsys.readouterr().err
    assert main(["hdtf", "dance"]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["synthesize", "--out", "x", "--clipz", "3"])
    assert stop.value.code == 2


def test_failed_work_exits_with_1_and_one_line(tmp_path, capsys):
    assert main(["cache-latents", "--data", str(tmp_path), "--autoencoder", str(tmp_path / "no.ckpt")]) == 1
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and "no.ckpt: no such file" in message


def test_missing_weights_of_an_experiment_are_named_in_one_line(tmp_path, capsys):
    missing, run = str(tmp_path / "no.ckpt"), str(tmp_path / "run")
    over = ["--model.autoencoder", missing, "--run", run, "--trainer.logger", "false"]
    assert main(["fit", "-c", str(EXPERIMENTS / "demo" / "diffusion.yaml"), *over]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith(f"difftalk_pl fit: {missing}: no such file")


def example(first: list[Path], out: Path, second: list[int], half: bool = False) -> None:
    """Show what the parser makes of types.

    Args:
        first: Files.
        out: A folder.
        second: Numbers.
        half: A flag.
    """


def test_required_lists_take_several_words(monkeypatch, capsys):
    monkeypatch.setitem(EXAMPLES, "example", "a --out b")
    given = parse("example", example, ["a", "b", "--out", "c", "--second", "1", "2", "--half", "true"])
    assert given == {"first": [Path("a"), Path("b")], "out": Path("c"), "second": [1, 2], "half": True}
    with pytest.raises(SystemExit):
        parse("example", example, ["a", "--out", "c"])
    assert "second" in capsys.readouterr().err
