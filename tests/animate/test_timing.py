"""Stages of a job, under a clock that the tests turn by hand."""

import pytest

from difftalk_pl.animate.command import timing
from difftalk_pl.animate.timing import StageClock


class Hand:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hand(monkeypatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(timing.time, "perf_counter", hand)
    return hand


def test_stages_add_up_and_time_between_them_counts_for_none(hand):
    clock = StageClock()
    for seconds in (1, 2):
        with clock("read"):
            hand.turn(seconds)
        hand.turn(50)
    with clock("write"):
        hand.turn(4)
    assert clock.seconds == {"read": 3, "write": 4}


def test_an_inner_stage_does_not_count_for_the_outer_one(hand):
    clock = StageClock()
    with clock("outer"):
        hand.turn(1)
        with clock("inner"):
            hand.turn(10)
            with clock("innermost"):
                hand.turn(100)
            hand.turn(20)
        hand.turn(2)
    assert clock.seconds == {"outer": 3, "inner": 30, "innermost": 100}


def test_a_stage_within_itself_counts_once(hand):
    clock = StageClock()
    with clock("draw"):
        hand.turn(1)
        with clock("draw"):
            hand.turn(2)
    assert clock.seconds == {"draw": 3}


def test_what_getting_items_takes_is_timed_and_not_what_is_done_with_them(hand):
    def items():
        for number in range(3):
            hand.turn(1)
            yield number
        hand.turn(0.5)

    clock, taken = StageClock(), []
    with clock("write"):
        for item in clock.each("read", items()):
            taken.append(item)
            hand.turn(10)
    assert taken == [0, 1, 2]
    assert clock.seconds == {"read": 3.5, "write": 30}


def test_chains_of_items_share_the_time(hand):
    """A reader within a decoder within a writer: each second belongs to one of them."""

    def read():
        for number in range(4):
            hand.turn(1)
            yield number

    def double(numbers):
        for number in numbers:
            hand.turn(5)
            yield 2 * number

    clock = StageClock()
    with clock("write"):
        assert list(clock.each("double", double(clock.each("read", read())))) == [0, 2, 4, 6]
        hand.turn(3)
    assert clock.seconds == {"write": 3, "double": 20, "read": 4}


def test_items_may_be_none_or_false_and_end_where_they_end(hand):
    clock = StageClock()
    assert list(clock.each("read", [None, 0, False, []])) == [None, 0, False, []]
    assert list(clock.each("read", [])) == []
    items = clock.each("read", iter(range(5)))
    assert [next(items), next(items)] == [0, 1]
    items.close()


def test_a_stage_that_fails_is_timed_and_closed(hand):
    clock = StageClock()

    def failing():
        hand.turn(2)
        raise RuntimeError("no frame")
        yield

    with clock("write"):
        with pytest.raises(RuntimeError, match="no frame"):
            list(clock.each("read", failing()))
        hand.turn(1)
    hand.turn(9)
    assert clock.seconds == {"read": 2, "write": 1}
