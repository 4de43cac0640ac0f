"""How scores become results.json."""

import math

import pytest
import torch

from difftalk_pl.callbacks.evaluation import summarise
from difftalk_pl.callbacks.sheets import contact_sheet, to_pixels


def test_means_are_over_frames_then_over_clips_and_what_is_undefined_is_counted():
    rows = torch.tensor(
        [
            [0, 0, 20.0, 0.8, 10.0, 0.5, 0.1, 0.2, 0.3, math.nan],
            [0, 1, 30.0, 0.9, 20.0, 0.7, 0.2, 0.4, 0.5, math.nan],
            [1, 0, math.inf, 1.0, math.inf, 1.0, 0.3, 0.3, 0.0, math.nan],
        ],
        dtype=torch.float64,
    )
    summary = summarise(rows, ["a", "b"])
    assert summary["per_clip"]["a"]["psnr"] == 25 and summary["per_clip"]["a"]["frames"] == 2
    assert summary["per_clip"]["a"]["opening_correlation"] == pytest.approx(1)
    assert summary["per_clip"]["b"]["psnr"] is None and summary["per_clip"]["b"]["opening_correlation"] is None
    assert summary["overall"]["psnr"] == 25 and summary["overall"]["ssim"] == pytest.approx(0.925)
    assert summary["overall"]["lpips"] == pytest.approx(0.2) and summary["overall"]["mouth_lpips"] is None
    undefined = {"psnr": 1, "ssim": 0, "lpips": 0, "mouth_psnr": 1, "mouth_ssim": 0, "mouth_lpips": 2}
    assert summary["undefined"] == {**undefined, "opening_correlation": 1}


def test_pixels_are_rounded_not_cut():
    image = torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 1, 4).expand(3, 1, 4)
    assert to_pixels(image)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_contact_sheet_holds_every_frame():
    frames = [torch.full((3, 8, 8), value) for value in (-1.0, 1.0)]
    rows = [("a", [to_pixels(frame) for frame in frames]), ("b", [to_pixels(frames[1])])]
    sheet = contact_sheet(rows)
    assert sheet.shape == (2 * (8 + 14), 2 * 10, 3)
    assert (sheet[14:22, :8] == 0).all() and (sheet[14:22, 10:18] == 255).all()
