"""RGB <-> YUV, the same way in both directions, so that a frame comes back from a file as it went in.

Three things have to agree between writer and reader or the picture shifts unseen: the matrix (BT.601 or BT.709), the
range (16-235) and where the halved chroma samples sit. All three are written into our files and taken from the files
of others.
"""

from fractions import Fraction

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

HD_LINES = 720  # from here on players expect BT.709, below it BT.601, should they not look at the tag
ACCURATE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
LANCZOS = (ACCURATE & ~Interpolation.BICUBIC) | Interpolation.LANCZOS
LUMA_FIRST = {
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"),
}
# swscale puts halved chroma in the middle of its pixels; a file that does not say so is read with chroma at the left
# edge, which costs up to 8 dB of RGB fidelity.
CHROMA = {"chroma_sample_location": "center"}
UNSPECIFIED = 2  # code points of ITU-T H.273
BT709 = 1
SMPTE170M = 6  # the matrix of BT.601


class ToRGB:
    """Decoded frame -> (H, W, 3) uint8 with square pixels, rotated for display.

    The matrix is the one that the frame names; where it names none, BT.601, as ffmpeg and all that is built on it
    assume.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.aspect = stream.sample_aspect_ratio or Fraction(1)
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, side: int | None = None) -> np.ndarray:
        """The frame at its own size, or as a square of `side` pixels, shrunk by Lanczos on the way."""
        named = frame.colorspace != UNSPECIFIED
        rgb = self.reformatter.reformat(
            frame,
            width=side or round(frame.width * self.aspect),
            height=side,
            format="gbrp",  # the same numbers as rgb24, in a third of the time
            src_colorspace=None if named else Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=LANCZOS if side else ACCURATE,
            threads=1,
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))


class ToLuma:
    """Decoded frame -> (H, W) uint8, its brightness with square pixels, rotated for display.

    The Y of 8 bit YUV is taken as it is, 16-235 where the file says so: it costs nothing, and who looks for edges and
    differences does not mind.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.aspect = stream.sample_aspect_ratio or Fraction(1)
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if self.aspect != 1 or frame.format.name not in LUMA_FIRST:
            width = round(frame.width * self.aspect)
            frame = self.reformatter.reformat(frame, width=width, format="gray", interpolation=ACCURATE, threads=1)
        plane = frame.planes[0]
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class ToYUV:
    """(H, W, 3) uint8 -> yuv420p frame, limited range, BT.709 from `HD_LINES` on, BT.601 below."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()

    def __call__(self, image: np.ndarray, k: int) -> VideoFrame:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        yuv = self.reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709 if height >= HD_LINES else Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=ACCURATE,
            threads=1,
        )
        yuv.pts = k
        return yuv


def tag_colours(context: VideoCodecContext, height: int) -> None:
    """Write into the stream what `ToYUV` does."""
    context.colorspace = BT709 if height >= HD_LINES else SMPTE170M
    context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
