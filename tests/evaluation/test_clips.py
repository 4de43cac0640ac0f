"""The table of clips: what comes out is what went in, once."""

import math

import pytest

from difftalk_pl.evaluation.clips import ClipTable


@pytest.fixture
def table():
    return ClipTable(("psnr", "lmd"), 3)


def test_scores_come_out_by_clip_in_order(table):
    table.update(7, {"psnr": 31.25, "lmd": None}, [1, 2, 3])
    table.update(2, {"lmd": 0.1}, None)
    table.update(3, {"psnr": math.inf, "lmd": math.nan}, [0.1, math.inf, -1.0])
    scores = table.compute()
    assert list(scores) == [2, 3, 7]
    assert scores == {
        2: ({"psnr": None, "lmd": 0.1}, None),
        3: ({"psnr": math.inf, "lmd": None}, [0.1, math.inf, -1.0]),
        7: ({"psnr": 31.25, "lmd": None}, [1.0, 2.0, 3.0]),
    }


def test_an_empty_table_has_no_clips(table):
    assert table.compute() == {}
    table.update(1, {}, None)
    table.reset()
    assert table.compute() == {}


def test_a_clip_counts_once(table):
    table.update(4, {"psnr": 1.0}, None)
    table.update(4, {"psnr": 1.0}, None)
    with pytest.raises(ValueError, match="clip 4 was reported twice"):
        table.compute()


@pytest.mark.parametrize(
    ("values", "curve", "message"),
    [({"ssim": 1.0}, None, r"\['ssim'\] are no measures"), ({}, [1.0, 2.0], "a curve of 2 places, expected 3")],
)
def test_what_does_not_fit_is_refused(table, values, curve, message):
    with pytest.raises(ValueError, match=f"clip 5: {message}"):
        table.update(5, values, curve)
    assert table.compute() == {}
