"""More frames a second: pictures between pictures, along the motion, by ffmpeg's minterpolate or a learned model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import av
import numpy as np

from difftalk_pl.errors import UserError

FILTER = "minterpolate"
BLOCK, SMALLEST = 16, 32  # px; the filter moves whole blocks, and takes no frame smaller than two of them
CUT = 10.0  # % of the scale by which a picture has to change at once; the filter's own threshold
ALIGNED = 64  # px; a learned network halves its pictures several times
YUV444 = av.VideoFormat("yuv444p")
GREEN_FIRST, AS_RGB = [1, 2, 0], [2, 0, 1]
Between = Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # (H, W, 3) uint8 twice and the moment, 0 to 1


def interpolate(
    frames: Iterable[np.ndarray], factor: int, fps: float = 25.0, model: Path | None = None
) -> Iterator[np.ndarray]:
    """N frames to N * factor: number k * factor is frame k as it was, and the last one is held.

    Nothing is drawn between the two sides of a cut: each side is held up to the middle. At most five frames and
    `factor` results are in memory.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; any size.
        factor: results a frame, at least 1.
        fps: frames a second of the input.
        model: a TorchScript file to draw with, as the published film_net: `forward(a, b, t)` takes two pictures
            (1, 3, H, W) in [0, 1], H and W multiples of 64, and the moment t (1, 1) between them, 0 to 1; it
            returns a picture of the same shape. Without it ffmpeg's filter draws.

    Yields:
        (H, W, 3) uint8 RGB. The same array object may come several times.

    Raises:
        UserError: no such file, or no TorchScript, or one that draws something else.
    """
    if factor < 1:
        raise ValueError(f"factor {factor}: at least 1")
    if factor == 1:
        yield from frames
    elif model is None:
        yield from _filtered(frames, factor, Fraction(fps).limit_denominator(100_000))
    else:
        yield from _drawn(frames, factor, learned(model))


def _filtered(frames: Iterable[np.ndarray], factor: int, fps: Fraction) -> Iterator[np.ndarray]:
    """The filter looks one frame back and two ahead, so that the first frame goes in twice, and the last one, too."""
    motion, waiting = None, deque[np.ndarray]()
    for image in frames:
        if motion is None:
            motion = MotionFilter(image.shape[0], image.shape[1], factor, fps)
            motion.push(image)
        waiting.append(image)
        yield from _in_turn(motion.push(image), waiting, factor)
    if motion is not None:
        last = waiting[-1]
        yield from _in_turn(motion.push(last), waiting, factor)
        yield from repeat(last, factor)


def _in_turn(
    between: Iterable[tuple[int, np.ndarray]], waiting: deque[np.ndarray], factor: int
) -> Iterator[np.ndarray]:
    """What the filter drew, by number, with each frame in front of what follows it."""
    for number, image in between:
        if number % factor == 1:
            yield waiting.popleft()
        yield image


class MotionFilter:
    """minterpolate on red, green and blue as they are: the planes of YUV 4:4:4 hold them, green in the place of
    brightness, by which motion is found. A conversion to YUV and back in 8 bits would cost up to 1 dB.
    """

    def __init__(self, height: int, width: int, factor: int, fps: Fraction) -> None:
        if FILTER not in av.filter.filters_available:
            raise UserError(f"this build of PyAV has no {FILTER}: install the wheel of av from PyPI, or give a model")
        self.height, self.width, self.factor, self.fps, self.count = height, width, factor, fps, 0
        self.padding = [(0, max(-side % BLOCK, SMALLEST - side)) for side in (height, width)] + [(0, 0)]
        (_, below), (_, right), _ = self.padding
        self.graph = av.filter.Graph()
        self.graph.threads = 1  # the filter has no threads, and others only hold frames
        source = self.graph.add_buffer(width=width + right, height=height + below, format=YUV444, time_base=1 / fps)
        options = f"fps={fps * factor}:mi_mode=mci:scd=fdiff:scd_threshold={CUT}"
        filter_, sink = self.graph.add(FILTER, options), self.graph.add("buffersink")
        source.link_to(filter_)
        filter_.link_to(sink)
        self.graph.configure()

    def push(self, image: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """One more frame. Returns what that lets the filter draw between earlier ones: numbers, counted from the second
        push on, that no frame has, and (H, W, 3) uint8."""
        planes = np.pad(image, self.padding, mode="edge").transpose(2, 0, 1)[GREEN_FIRST]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
        frame.pts, frame.time_base = self.count, 1 / self.fps
        self.graph.push(frame)
        self.count += 1
        return [(number, self._rgb(out)) for number, out in self._pull() if number > 0 and number % self.factor]

    def _pull(self) -> Iterator[tuple[int, av.VideoFrame]]:
        while True:
            try:
                out = self.graph.pull()
            except (BlockingIOError, EOFError):
                return
            assert isinstance(out, av.VideoFrame) and out.pts is not None
            yield out.pts - self.factor, out

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        image = frame.to_ndarray()[AS_RGB].transpose(1, 2, 0)
        return np.ascontiguousarray(image[: self.height, : self.width])


def _drawn(frames: Iterable[np.ndarray], factor: int, between: Between) -> Iterator[np.ndarray]:
    """Every pair of neighbours by itself, cuts as the filter takes them."""
    a, change = None, 0.0
    for b in frames:
        if a is not None:
            before, change = change, _change(a, b)
            cut = min(change, abs(change - before)) >= CUT
            yield a
            for t in (part / factor for part in range(1, factor)):
                yield (b if t > 0.5 else a) if cut else between(a, b, t)
        a = b
    if a is not None:
        yield from repeat(a, factor)


def _change(a: np.ndarray, b: np.ndarray) -> float:
    """How much of the scale lies between two pictures, %."""
    return 100 / 256 * float(np.abs(a[..., 1].astype(np.int16) - b[..., 1]).mean())


def learned(path: Path) -> Between:
    """A network that draws the picture between two others, on the GPU where there is one.

    Only TorchScript is read: such a file holds tensors and a program for torch's own interpreter, so that nothing of
    it can run in Python.

    Raises:
        UserError: as `interpolate`; the function that is returned, too.
    """
    import torch
    from torch.nn.functional import pad

    expected = "expected TorchScript with forward(a, b, t), as the published film_net; give another file or none"
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {expected}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as TorchScript; {expected}") from error
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)

    def tensor(image: np.ndarray) -> torch.Tensor:
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].to(dtype) / 255
        return pad(pixels, (0, -width % ALIGNED, 0, -height % ALIGNED), mode="replicate")

    def between(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
        first, second = tensor(a), tensor(b)
        try:
            with torch.no_grad():
                drawn = network(first, second, torch.full((1, 1), t, dtype=dtype, device=device))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(f"{path}: fails on two pictures {tuple(first.shape)}; {expected}") from error
        shape = tuple(drawn.shape) if isinstance(drawn, torch.Tensor) else type(drawn).__name__
        if shape != tuple(first.shape):
            raise UserError(f"{path}: returns {shape} for pictures {tuple(first.shape)}; {expected}")
        pixels = (drawn[0, :, : a.shape[0], : a.shape[1]].float().clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())

    return between
