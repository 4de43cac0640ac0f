"""More frames a second: pictures between pictures, along the motion, by ffmpeg's minterpolate."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice, repeat

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from difftalk_pl.media.files import pull

BLOCK = 16  # px; the filter moves whole blocks
OPTIONS = "mi_mode=mci:scd=fdiff:scd_threshold=10"  # motion compensation; a change of 10 % at once is a cut
GREEN_FIRST, AS_RGB = [1, 2, 0], [2, 0, 1]  # green in the place of brightness, by which motion is found


def interpolate(frames: Iterable[np.ndarray], factor: int, fps: float = 25.0) -> Iterator[np.ndarray]:
    """Turn N frames into N * factor: number k * factor is frame k as it was, and the last one is held.

    Nothing is drawn across a cut: each side is held up to the middle. Memory holds a few frames. The planes of YUV
    4:4:4 carry RGB as it is: a conversion and back in 8 bits would cost up to 1 dB.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size, `fps` a second; so are the results.
        factor: results a frame, at least 2.
    """
    graph, image, rate, rest = Graph(), None, Fraction(fps).limit_denominator(100_000), iter(frames)
    first = list(islice(rest, 1))
    for number, frame in enumerate(chain(first, first, rest, [None])):  # the filter looks one back and two ahead
        if (image := image if frame is None else frame) is None:
            return
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(padded.transpose(2, 0, 1)[GREEN_FIRST]), "yuv444p")
        picture.pts, picture.time_base = number, 1 / rate
        if number == 0:
            graph.threads = 1  # the filter has no threads, and others only hold frames
            graph.link_nodes(
                graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=1 / rate),
                graph.add("minterpolate", f"fps={rate * factor}:{OPTIONS}"),
                graph.add("buffersink"),
            ).configure()
        graph.push(picture)
        for drawn in pull(graph):
            if (drawn.pts or 0) >= factor:  # the first frame was pushed twice
                yield np.ascontiguousarray(drawn.to_ndarray()[AS_RGB].transpose(1, 2, 0)[:height, :width])
    yield from repeat(image, factor - 1)
