"""The rooms of the package: imports run one way, files stay short, and the library logs."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import difftalk_pl

PACKAGE = Path(difftalk_pl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("data", "models", "stages", "metrics", "callbacks")
OPEN = {"__init__", "errors", "logs", "progress", "pretrained", "revision"}  # to all rooms
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - OPEN
FORBIDDEN = {
    "data": {"models", "stages", "metrics", "callbacks", *COMMANDS},
    "models": {"data", "stages", "metrics", "callbacks", *COMMANDS},
    "metrics": {"data", "models", "stages", "callbacks", *COMMANDS},
    "stages": {"callbacks", *COMMANDS},
    "callbacks": COMMANDS,
}


def imported(source: str) -> list[list[str]]:
    """Names below the package in all imports, those within functions and strings for import_module included."""
    dotted = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            dotted.append(node.value)
    return [name.split(".")[1:] for name in dotted if name.startswith("difftalk_pl.")]


def rooms_imported(source: str) -> set[str]:
    return {names[0] for names in imported(source)}


def identify(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_the_rooms_are_there():
    assert {path.parent.name for path in FILES} >= set(ROOMS)
    assert {"__main__", "cli", "animate", "benchmark"} <= COMMANDS


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != PACKAGE], ids=identify)
def test_imports_run_one_way(path):
    room = path.relative_to(PACKAGE).parts[0]
    assert not rooms_imported(path.read_text(encoding="utf-8")) & FORBIDDEN[room]


def test_rooms_of_data_do_not_know_each_other():
    knows: dict[str, set[str]] = {}
    for path in (PACKAGE / "data").rglob("*.py"):
        room = path.relative_to(PACKAGE / "data").parts[0].removesuffix(".py")
        names = imported(path.read_text(encoding="utf-8"))
        knows.setdefault(room, set()).update(deep[1] for deep in names if deep[0] == "data" and len(deep) > 1)
        knows[room].discard(room)
    assert len(knows) > 20
    TopologicalSorter(knows).prepare()  # raises CycleError, which names the circle


def test_the_parser_of_imports_sees_every_way():
    source = """
import difftalk_pl.one
from difftalk_pl.two import a
from difftalk_pl import three
def f():
    from difftalk_pl.four.deep import b
    import_module("difftalk_pl.five")
"""
    assert rooms_imported(source) == {"one", "two", "three", "four", "five"}


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_files_stay_short_and_print_nothing(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
