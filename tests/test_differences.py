"""The table of differences, in runs of pytest of its own."""

import pytest

from tests import differences

PLUGIN = ("-p", "tests.differences", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs the test functions in `source`; `oracles`: whether the folder of oracles is there."""

    def run(source, oracles=True):
        monkeypatch.setattr(differences, "ORACLES", pytester.path if oracles else pytester.path / "absent")
        pytester.makeini("[pytest]\nmarkers = oracle")
        pytester.makepyfile("import pytest\n" + source)
        return pytester.runpytest_inprocess(*PLUGIN)

    return run


def test_the_largest_value_of_every_name_is_listed_in_order(run):
    result = run("""
def test_a(record_difference):
    record_difference("second", 1e-6, 5e-5)
    record_difference("second", 3e-6, 5e-5)
    record_difference("second", 2e-6, 5e-5)
def test_b(record_difference):
    record_difference("first", 0, 0)
""")
    result.assert_outcomes(passed=2)
    lines = ["*largest differences from independent numbers*", "", "first *0.00e+00*0e+00", "second *3.00e-06*5e-05"]
    result.stdout.fnmatch_lines(lines, consecutive=True)


@pytest.mark.parametrize("value", ["2e-4", "float('nan')", "float('inf')"])
def test_what_is_not_within_the_tolerance_fails_and_stays_in_the_table(run, value):
    result = run(f"""
def test_a(record_difference):
    record_difference("network", {value}, 1e-4)
def test_again(record_difference):
    record_difference("network", 0.0, 1e-4)
def test_b(record_difference):
    record_difference("network 2", 0.0, 1e-4)
""")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["network  *TOO LARGE", "network 2 *0.00e+00*1e-04"])


def test_without_differences_there_is_no_table(run):
    assert "independent numbers" not in run("def test_a(): pass").stdout.str()


SKIPPED = """
@pytest.fixture
def missing(): pytest.skip("not there")
@pytest.mark.oracle
def test_by_fixture(missing): pass
@pytest.mark.oracle
def test_by_itself(): pytest.skip("too slow")
@pytest.mark.oracle
@pytest.mark.skip(reason="later")
def test_by_marker(): pass
def test_of_something_else(missing): pass
"""


def test_a_skipped_oracle_test_fails_where_the_oracles_are(run):
    result = run(SKIPPED)
    counts = result.parseoutcomes()
    assert counts.get("failed", 0) + counts.get("errors", 0) == 3
    assert counts["skipped"] == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_without_the_oracles_they_are_skipped(run):
    result = run(SKIPPED, oracles=False)
    result.assert_outcomes(skipped=4)
    assert result.ret == pytest.ExitCode.OK
