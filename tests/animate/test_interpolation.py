"""Pictures between pictures: where things are in them, what is left alone, and which models are refused."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch

from difftalk_pl.animate.interpolation import interpolate
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import SourceVideo

RNG = np.random.default_rng(0)


def smooth(height, width, seed=0):
    """A soft texture, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.15, 0.15, (6, 3)) * (1, 1, 20)]
    return np.clip(128 + 25 * np.stack([sum(waves[i : i + 4]) for i in range(3)], -1), 0, 255).astype(np.uint8)


SQUARE = np.kron(RNG.integers(0, 255, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def with_square(left, size=128):
    """A checked square of 32 pixels before a soft texture."""
    image = smooth(size, size)
    image[48:80, left : left + 32] = SQUARE
    return image


def place(image):
    """The column at which the square is seen best."""
    columns = range(image.shape[1] - 31)
    return int(np.argmin([np.abs(image[48:80, x : x + 32].astype(int) - SQUARE).mean() for x in columns]))


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_square_is_between_where_it_was_and_where_it_goes(factor, step):
    frames = [with_square(20 + step * i) for i in range(6)]
    results = list(interpolate(iter(frames), factor))
    assert len(results) == factor * len(frames)
    for k, image in enumerate(results):
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        if k % factor == 0:
            assert np.array_equal(image, frames[k // factor])
    places = np.array([place(image) for image in results[: factor * 5 + 1]])
    assert np.abs(places - (20 + step * np.arange(len(places)) / factor)).max() <= 1
    assert all(np.array_equal(image, frames[-1]) for image in results[factor * 5 :])


@pytest.mark.parametrize("fps", [25, 30000 / 1001, 12.5])
@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (16, 16), (1, 2), (17, 200), (241, 35)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_any_size_rate_and_number(shape, fps, count):
    frames = [np.roll(smooth(*shape), i, 1) for i in range(count)]
    results = list(interpolate(frames, 3, fps))
    assert len(results) == 3 * count
    assert all(np.array_equal(image, frame) for image, frame in zip(results[::3], frames))
    assert all(image.shape == (*shape, 3) for image in results)


def test_a_still_picture_stays():
    noise = RNG.integers(0, 255, (80, 100, 3), dtype=np.uint8)
    assert all(np.array_equal(image, noise) for image in interpolate([noise] * 6, 4))


def constant(value=0.5):
    """A model that draws one shade."""

    class Shade(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.full_like(a, 0.5) + 0 * b * t[:, :, None, None]

    return torch.jit.script(Shade())


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_nothing_is_drawn_across_a_cut(tmp_path, factor, learned):
    constant().save(tmp_path / "shade.pt")
    before = [np.roll(smooth(96, 96, 1) // 2, i, 1) for i in range(5)]
    after = [np.roll(128 + smooth(96, 96, 2) // 2, i, 1) for i in range(5)]
    results = list(interpolate(before + after, factor, model=tmp_path / "shade.pt" if learned else None))
    for part in range(factor + 1):
        expected = before[-1] if part <= factor / 2 else after[0]
        assert np.array_equal(results[4 * factor + part], expected), part
    assert not any(np.array_equal(results[3 * factor + 1], frame) for frame in before)


def test_real_faces_come_nearer_than_by_averaging(real_clips):
    shown = list(SourceVideo(real_clips / "r3d_may.mp4").frames(21))
    kept, left_out = shown[::2], shown[1::2]
    drawn = list(interpolate(kept, 2))[1:-1:2]
    averages = [(a.astype(int) + b + 1) // 2 for a, b in pairwise(kept)]

    def psnr(images):
        return 10 * np.log10(255**2 / np.mean([np.square(a.astype(float) - b) for a, b in zip(images, left_out)]))

    assert psnr(drawn) > psnr(averages) + 2 > psnr(kept) + 4


def test_frames_go_by():
    """Five frames and the results of one step, of a stream of any length."""
    size = 128
    pictures = [with_square(10 + k, size) for k in range(40)]
    tracemalloc.start()
    count = sum(1 for _ in interpolate((pictures[k % 40].copy() for k in range(150)), 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300 and peak < 20 * size * size * 3


class Blend(torch.nn.Module):
    """What a learned model does, without learning; sides that are no multiple of 64 are refused as film_net does."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert a.dim() == 4 and a.shape[1] == 3 and t.shape == (1, 1)
        assert a.shape[2] % 64 == 0 and a.shape[3] % 64 == 0
        return a * (1 - t)[:, :, None, None] + b * t[:, :, None, None]


@pytest.mark.parametrize("shape", [(64, 64), (50, 70), (2, 3)])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_model_draws_between(tmp_path, shape, count):
    torch.jit.script(Blend()).save(tmp_path / "blend.pt")
    frames = [
        np.full((*shape, 3), 40 + 20 * i, np.uint8) + RNG.integers(0, 9, (*shape, 3), np.uint8) for i in range(count)
    ]
    results = list(interpolate(iter(frames), 4, model=tmp_path / "blend.pt"))
    assert len(results) == 4 * count
    for k, image in enumerate(results):
        a, b = frames[k // 4], frames[min(k // 4 + 1, count - 1)]
        assert np.abs(image - (a * (1 - k % 4 / 4) + b * (k % 4 / 4))).max() <= 0.5 + 1e-4
    assert all(np.array_equal(image, frame) for image, frame in zip(results[::4], frames))


class Halved(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return a[:, :, ::2, ::2]


class Several(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a, b


class Single(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (Halved, r"returns \(1, 3, 32, 32\) for pictures \(1, 3, 64, 64\)"),
        (Several, r"returns tuple for pictures"),
        (Single, r"fails on two pictures \(1, 3, 64, 64\)"),
    ],
)
def test_models_that_draw_something_else_are_named(tmp_path, network, cause):
    torch.jit.script(network()).save(tmp_path / "net.pt")
    frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    with pytest.raises(UserError, match=rf"net\.pt: {cause}.*expected TorchScript.*give another file"):
        list(interpolate(frames, 2, model=tmp_path / "net.pt"))


class Harmful:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_only_torchscript_is_read(tmp_path):
    """Pickles of either format are refused unread."""
    trace = tmp_path / "trace"
    torch.save({"weights": Harmful(trace)}, tmp_path / "zip.pt")
    torch.save({"weights": Harmful(trace)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt").write_text("no model")
    frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    for name in ("zip", "old", "text"):
        with pytest.raises(
            UserError, match=rf"{name}\.pt: cannot be read as TorchScript; expected .* give another file"
        ):
            list(interpolate(frames, 2, model=tmp_path / f"{name}.pt"))
    with pytest.raises(UserError, match=r"missing\.pt: no such file"):
        list(interpolate(frames, 2, model=tmp_path / "missing.pt"))
    assert not trace.exists()


def test_a_factor_below_one_is_a_mistake():
    with pytest.raises(ValueError, match="factor 0: at least 1"):
        list(interpolate([], 0))
