"""Means of LPIPS's maps, on maps whose means are known."""

import torch

from difftalk_pl.metrics.perceptual import lpips, masked_lpips
from difftalk_pl.metrics.scores import MEASURES, frame_scores


def quadrants(*values: float) -> torch.Tensor:
    """(1, 1, 2, 2)"""
    return torch.tensor(values).view(1, 1, 2, 2)


def test_layers_count_alike_whatever_their_size():
    layers = [torch.full((2, 1, 8, 8), 0.25), torch.stack([torch.full((1, 1, 1), value) for value in (0.5, 1.0)])]
    assert lpips(layers).tolist() == [0.75, 1.25]


def test_under_a_mask_the_enlarged_map_counts():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1  # in a corner the enlarged map is the corner's value
    assert masked_lpips([quadrants(0.1, 0.2, 0.3, 0.4), quadrants(1, 0, 0, 0)], mask).item() == torch.tensor(0.1) + 1
    mask[..., :2] = 1  # columns 0 and 1 of 0, 0.25, 0.75, 1
    ramp = quadrants(0, 1, 0, 1)
    assert masked_lpips([ramp], mask).item() == 0.125
    assert masked_lpips([ramp], torch.ones_like(mask)) == lpips([ramp])
    assert masked_lpips([ramp], torch.zeros_like(mask)).isnan()


def test_scores_without_a_network_or_a_mask_are_not_measured():
    frames, layers = torch.zeros(1, 3, 16, 16), [quadrants(0.1, 0.2, 0.3, 0.4).expand(1, 1, 2, 2)]
    mask = torch.ones(1, 1, 16, 16)
    rows = {
        "neither": frame_scores(frames, frames, mask, None),
        "no mask": frame_scores(frames, frames, None, None, layers),
        "both": frame_scores(frames, frames, mask, None, layers),
    }
    columns = [MEASURES.index("lpips"), MEASURES.index("mouth_lpips")]
    measured = {name: (~row[0, columns].isnan()).tolist() for name, row in rows.items()}
    assert measured == {"neither": [False, False], "no mask": [True, False], "both": [True, True]}
