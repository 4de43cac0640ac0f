"""More frames a second: pictures between pictures, along the motion, by ffmpeg's minterpolate."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import repeat

import av
import numpy as np

BLOCK = 16  # px; the filter moves whole blocks
OPTIONS = "mi_mode=mci:scd=fdiff:scd_threshold=10"  # motion compensation; a change of 10 % at once is a cut
GREEN_FIRST, AS_RGB = [1, 2, 0], [2, 0, 1]


def interpolate(frames: Iterable[np.ndarray], factor: int, fps: float = 25.0) -> Iterator[np.ndarray]:
    """Turn N frames into N * factor: number k * factor is frame k as it was, and the last one is held.

    Nothing is drawn between the two sides of a cut: each side is held up to the middle. Memory holds a few frames. Red,
    green and blue lie in the planes of YUV 4:4:4, green in the place of brightness, by which motion is found: a
    conversion to YUV and back in 8 bits would cost up to 1 dB.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; so are the results.
        factor: results a frame, at least 2.
        fps: frames a second of the input.
    """
    graph, image, rate = None, None, Fraction(fps).limit_denominator(100_000)
    for count, image in enumerate(_ends_twice(frames)):
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
        planes = np.ascontiguousarray(padded.transpose(2, 0, 1)[GREEN_FIRST])
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        frame.pts, frame.time_base = count, 1 / rate
        graph = graph or _graph(frame, rate, factor)
        graph.push(frame)
        for drawn in _pull(graph):
            if (drawn.pts or 0) >= factor:  # the first frame was pushed twice
                yield np.ascontiguousarray(drawn.to_ndarray()[AS_RGB].transpose(1, 2, 0)[:height, :width])
    if image is not None:
        yield from repeat(image, factor - 1)


def _ends_twice(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The filter looks one frame back and two ahead."""
    last = None
    for frame in frames:
        if last is None:
            yield frame
        yield (last := frame)
    if last is not None:
        yield last


def _graph(frame: av.VideoFrame, rate: Fraction, factor: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1  # the filter has no threads, and others only hold frames
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=1 / rate),
        graph.add("minterpolate", f"fps={rate * factor}:{OPTIONS}"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()  # type: ignore[misc]
        except (BlockingIOError, EOFError):
            return
