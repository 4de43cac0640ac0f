"""What two processes measured is what one measures of all of it, also where one of them had nothing to do."""

import datetime
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from difftalk_pl.evaluation.clips import ClipTable
from difftalk_pl.evaluation.frames import PSNR
from difftalk_pl.evaluation.motion import Jitter
from difftalk_pl.evaluation.opening import OpeningCorrelation
from difftalk_pl.evaluation.rows import RowMetric
from difftalk_pl.evaluation.sync import LipSync

CLIPS = (0, 1, 7)  # with one clip, the second process has none


def measure(clips, of, **options):
    """What the metrics say after these clips of `of`."""
    metrics = {
        "psnr": PSNR(**options),
        "jitter": Jitter(**options),
        "opening": OpeningCorrelation(**options),
        "sync": LipSync(**options),
        "table": ClipTable(("psnr", "sync"), 31, **options),
    }
    for clip in clips:
        rng = torch.Generator().manual_seed(100 * of + clip)
        frames = torch.rand(2, 5, 3, 24, 24, generator=rng) * 2 - 1
        metrics["psnr"].update(*frames)
        metrics["jitter"].update(*frames[:, :, 0])
        metrics["opening"].update(frames[0], torch.rand(5, 68, 2, generator=rng))
        metrics["sync"].update(*torch.randn(2, 6, 4, generator=rng))
        metrics["table"].update(clip, {"psnr": clip / 3, "sync": None}, [clip + 0.1] * 31 if clip % 2 else None)
    return {name: metric.compute() for name, metric in metrics.items()}


def process(rank, folder):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wait = datetime.timedelta(seconds=120)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=wait)
    found = {of: measure(range(rank, of, 2), of) for of in CLIPS}
    found["alone"] = measure(range(rank, 7, 2), 7, sync_on_compute=False)
    table = ClipTable(("psnr",), 3)
    table.update(5, {"psnr": 1.0}, None)
    try:
        table.compute()
    except ValueError as error:
        found["twice"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes has in the end."""
    folder = tmp_path_factory.mktemp("rows")
    multiprocessing.start_processes(process, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def flat(values):
    """All numbers of a result; the mean curve of `LipSync` place by place."""
    scalars = [*values["sync"][:3], *values["sync"].curve.tolist()]
    return np.array([float(values[name]) for name in ("psnr", "jitter", "opening")] + scalars)


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("of", CLIPS)
def test_two_processes_find_what_one_finds_in_all_clips(ranks, of):
    one = measure(range(of), of)
    for values in (found[of] for found in ranks):
        np.testing.assert_allclose(flat(values), flat(one), rtol=1e-13, atol=1e-14)
        assert np.array_equal(flat(values), flat(ranks[0][of]), equal_nan=True), "the same in both, bit by bit"
        assert values["table"] == one["table"] and list(values["table"]) == list(range(of))
        assert all(scores["psnr"] == clip / 3 for clip, (scores, _) in values["table"].items()), "float64 on the way"
    assert math.isnan(one["psnr"]) == (of == 0)


@pytest.mark.ddp
def test_a_clip_of_two_processes_is_an_error_in_both(ranks):
    assert [found["twice"] for found in ranks] == ["clip 5 was reported twice: every clip belongs to one process"] * 2


@pytest.mark.ddp
def test_a_clip_that_one_process_judges_is_not_gathered(ranks):
    for rank, found in enumerate(ranks):
        assert np.array_equal(flat(found["alone"]), flat(measure(range(rank, 7, 2), 7)))
        assert list(found["alone"]["table"]) == list(range(rank, 7, 2))


class Pairs(RowMetric):
    def __init__(self):
        super().__init__({"pairs": 2})

    def update(self, rows):
        self.keep("pairs", torch.tensor(rows, dtype=torch.float64))

    def compute(self):
        return self.table("pairs")


def test_rows_are_kept_in_double_precision_and_forgotten_on_reset():
    metric = Pairs()
    metric.update([[1, 2]])
    metric.update([[3, 0.1], [4, 5]])
    assert metric.compute().tolist() == [[1, 2], [3, 0.1], [4, 5]]
    metric.reset()
    assert metric.table("pairs").shape == (0, 2) and metric.table("pairs").dtype == torch.float64
    assert metric([[6, 7]]).tolist() == [[6, 7]] and metric([[8, 9]]).tolist() == [[8, 9]], "of the last update"
    assert metric.compute().tolist() == [[6, 7], [8, 9]]
