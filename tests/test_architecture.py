"""The structure of the package: imports run one way, files stay short, and the library logs."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import difftalk_pl

PACKAGE = Path(difftalk_pl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LEVELS = ("media", "faces"), ("data", "models"), ("training", "generation", "evaluation"), ("callbacks", "animate")
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
SEPARATE = {"data": {"models"}, "models": {"data"}, "media": {"faces"}}  # of one level, and independent of each other


def imports(path: Path) -> list[str]:
    """Dotted names below the package that a file imports, anywhere in it."""
    dotted: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.removeprefix("difftalk_pl.") for name in dotted if name.startswith("difftalk_pl.")]


def identify(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != PACKAGE], ids=identify)
def test_imports_run_one_way(path):
    package = path.relative_to(PACKAGE).parts[0]
    imported = {name.split(".")[0] for name in imports(path)}
    higher = {other for other, level in LEVEL.items() if level > LEVEL[package]} | {"__main__", "cli"}
    assert not imported & (higher | SEPARATE.get(package, set()))


def test_no_file_imports_itself_through_others():
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    graph = {
        name: {found for one in imports(path) if (found := _module(one, modules))} for name, path in modules.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def _module(name: str, modules: dict[str, Path]) -> str | None:
    return name if name in modules else name.rpartition(".")[0] if name.rpartition(".")[0] in modules else None


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_files_stay_short_and_print_nothing(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def test_size():
    """A cap on the whole: what grows beyond it has to remove something."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    data = sum(count for path, count in lines.items() if path.relative_to(PACKAGE).parts[0] == "data")
    assert sum(lines.values()) < 10_700
    assert data <= 0.4 * sum(lines.values())
