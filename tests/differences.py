"""What is asked of every comparison with independent numbers: it says how far off it was, and it is not left out."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ORACLES = Path(__file__).parents[2] / "shared" / "oracles"
DIFFERENCE = "difference"  # name of a test's property, which comes back from processes that run tests


@pytest.fixture
def record_difference(record_property: Callable[[str, object], None]) -> Callable[[str, float, float], None]:
    """`record_difference(name, value, tolerance)` fails where value > tolerance or is nan, and adds to the table.

    A name that comes again keeps its largest value.
    """

    def record(name: str, value: float, tolerance: float) -> None:
        record_property(DIFFERENCE, (name, float(value), float(tolerance)))
        assert value <= tolerance, f"{name}: differs by {value:.3g}, expected at most {tolerance:.3g}"

    return record


class Differences:
    """Collects them where the tests are reported, and prints the table."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, content in report.user_properties if report.when == "call" else ():
            if key == DIFFERENCE:
                name, *pair = content  # type: ignore[misc]
                pairs = (self.found.get(name, tuple(pair)), tuple(pair))
                self.found[name] = max(pairs, key=lambda pair: (math.isnan(pair[0]), pair[0]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.found:
            return
        width = max(map(len, self.found))
        terminalreporter.section("largest differences from independent numbers")
        for name, (value, tolerance) in sorted(self.found.items()):
            verdict = "" if value <= tolerance else "  TOO LARGE"
            terminalreporter.write_line(f"{name:{width}}  {value:9.2e}  tolerance {tolerance:.0e}{verdict}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Differences())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where the oracles are, a skipped oracle test is a failed one: silence must not look like agreement."""
    report = yield
    if report.skipped and item.get_closest_marker("oracle") and ORACLES.exists():
        report.outcome = "failed"
        report.longrepr = f"skipped, although {ORACLES.name} are there: {report.longrepr}"
    return report
