"""Means over frames, on numbers whose means are known exactly."""

import math

import pytest
import torch

from difftalk_pl.evaluation.frame_mean import FrameMean


class Numbers(FrameMean):
    def update(self, values):
        self.add(values)


def mean(*chunks):
    metric = Numbers()
    for chunk in chunks:
        metric.update(torch.tensor(chunk))
    return metric


def test_every_frame_counts_alike_whatever_its_chunk():
    assert mean([1.0, 2.0, 3.0], [10.0]).compute() == 4


def test_sums_keep_what_single_precision_loses():
    metric = mean([2.0**24], [1.0], [1.0])
    assert metric.total.dtype == torch.float64 and metric.total == 2**24 + 2


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_frame_without_a_finite_number_shows_in_the_mean(value):
    computed = mean([1.0], [value, 2.0]).compute()
    assert computed == value or (computed.isnan() and math.isnan(value))


def test_nothing_has_no_mean_and_reset_forgets():
    metric = mean([3.0])
    metric.reset()
    assert metric.compute().isnan() and metric.count == 0
