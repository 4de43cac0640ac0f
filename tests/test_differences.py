"""The table of differences, in runs of pytest of its own."""

import pytest

from tests import differences

SOURCE = """
import pytest
def test_a(record_difference):
    record_difference("network", 1e-6, 5e-5)
    record_difference("network", 3e-6, 5e-5)
def test_b(record_difference):
    record_difference("another", float("nan"), 1e-4)
@pytest.fixture
def missing(): pytest.skip("not there")
@pytest.mark.oracle
def test_skipped(missing): pass
"""


@pytest.mark.parametrize("oracles", [True, False])
def test_table_of_largest_differences_and_skipped_oracles(pytester, monkeypatch, oracles):
    """Where the oracles are, a skipped oracle test fails."""
    monkeypatch.setattr(differences, "ORACLES", pytester.path if oracles else pytester.path / "absent")
    pytester.makeini("[pytest]\nmarkers = oracle")
    pytester.makepyfile(SOURCE)
    result = pytester.runpytest_inprocess("-p", "tests.differences", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["another *nan *TOO LARGE", "network *3.00e-06 *5e-05"], consecutive=True)
    counts = result.parseoutcomes()
    assert counts.get("failed", 0) + counts.get("errors", 0) == 1 + oracles
    assert counts.get("skipped", 0) == 1 - oracles
