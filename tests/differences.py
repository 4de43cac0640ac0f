"""What is asked of every comparison with independent numbers: it says how far off it was, and it is not left out."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ORACLES = Path(__file__).parents[2] / "shared" / "oracles"
DIFFERENCES = pytest.StashKey[dict[str, tuple[float, float]]]()


@pytest.fixture
def record_difference(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """`record_difference(name, value, tolerance)` fails where value > tolerance or is nan, and adds to the table.

    A name that comes again keeps its largest value.
    """
    differences = request.config.stash.setdefault(DIFFERENCES, {})

    def record(name: str, value: float, tolerance: float) -> None:
        found = (float(value), tolerance)
        differences[name] = max(differences.get(name, found), found, key=lambda pair: (math.isnan(pair[0]), pair[0]))
        assert value <= tolerance, f"{name}: differs by {value:.3g}, expected at most {tolerance:.3g}"

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    differences = config.stash.get(DIFFERENCES, {})
    if not differences:
        return
    width = max(map(len, differences))
    terminalreporter.section("largest differences from independent numbers")
    for name, (value, tolerance) in sorted(differences.items()):
        verdict = "" if value <= tolerance else "  TOO LARGE"
        terminalreporter.write_line(f"{name:{width}}  {value:9.2e}  tolerance {tolerance:.0e}{verdict}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where the oracles are, a skipped oracle test is a failed one: silence must not look like agreement."""
    report = yield
    if report.skipped and item.get_closest_marker("oracle") and ORACLES.exists():
        report.outcome = "failed"
        report.longrepr = f"skipped, although {ORACLES.name} are there: {report.longrepr}"
    return report
