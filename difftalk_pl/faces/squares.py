"""The square that a clip is cut to, out of whole frames or straight out of what the decoder gives."""

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from difftalk_pl.faces.framing import Crop
from difftalk_pl.media.colour import ToRGB

EVEN = ("yuv420p", "yuvj420p", "nv12", "yuv420p10le")  # a chroma sample for 2 x 2 pixels


def cut_frame(frame: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The square of a frame at the clip's size, (size, size, 3) uint8; Lanczos over all pixels, so nothing aliases."""
    square = frame[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
    if crop.side == size:
        return square
    return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.LANCZOS))


class CutSquare:
    """Decoded frame -> (size, size, 3) uint8 RGB of one square, as `cut_frame` cuts it: within 0.6 levels RMS.

    The square is cut before it becomes RGB and shrunk on the way, by swscale's Lanczos: a quarter of the time. Frames
    that are to be rotated or have oblong pixels, and squares between two chroma samples, go the long way.
    """

    def __init__(self, stream: VideoStream, crop: Crop, size: int) -> None:
        self.crop, self.size, self.to_rgb = crop, size, ToRGB(stream)
        self._graph: Graph | None = None
        self._cut: tuple[str, int, int] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if not self._is_plain(frame):
            return cut_frame(self.to_rgb(frame), self.crop, self.size)
        return self.to_rgb(self._square(frame), self.size)

    def _is_plain(self, frame: VideoFrame) -> bool:
        if frame.rotation or self.to_rgb.aspect != 1:
            return False
        return frame.format.name in EVEN and not any(side % 2 for side in self.crop)

    def _square(self, frame: VideoFrame) -> VideoFrame:
        """A view into the frame, with its colour tags."""
        kind = (frame.format.name, frame.width, frame.height)
        if self._graph is None or self._cut != kind:
            self._graph, self._cut = Graph(), kind
            self._graph.threads = 1
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            crop = self._graph.add("crop", f"{self.crop.side}:{self.crop.side}:{self.crop.x}:{self.crop.y}")
            sink = self._graph.add("buffersink")
            source.link_to(crop)
            crop.link_to(sink)
            self._graph.configure()
        self._graph.vpush(frame)
        return self._graph.vpull()
