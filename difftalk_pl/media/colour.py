"""RGB <-> YUV, the same way in both directions, so that a frame comes back from a file as it went in.

Matrix, range and place of the halved chroma samples are written into our files and taken from the files of others.
"""

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

HD_LINES = 720  # from here on players expect BT.709, below it BT.601, where a file has no tag
SHARP = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
UNSPECIFIED, BT709, SMPTE170M = 2, 1, 6  # code points of ITU-T H.273; the last one is the matrix of BT.601


class ToRGB:
    """Convert decoded frames to (H, W, 3) uint8 with square pixels, rotated for display; untagged ones are BT.601."""

    form = "gbrp"  # the same numbers as rgb24, in a third of the time
    by_tags = True

    def __init__(self, stream: VideoStream) -> None:
        self.aspect, self._reformatter = float(stream.sample_aspect_ratio or 1), VideoReformatter()

    def __call__(self, frame: VideoFrame, side: int | None = None) -> np.ndarray:
        """Convert at the frame's own size, or to a square of `side` pixels, shrunk by Lanczos on the way."""
        converted = self._reformatter.reformat(
            frame,
            width=side or round(frame.width * self.aspect),
            height=side,
            format=self.form,
            src_colorspace=None if self.by_tags and frame.colorspace != UNSPECIFIED else Colorspace.ITU601,
            src_color_range=None if self.by_tags else ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=SHARP | (Interpolation.LANCZOS if side else Interpolation.BICUBIC),
            threads=1,
        )
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), round(frame.rotation / 90)))


class ToLuma(ToRGB):
    """Take the brightness of decoded frames, (H, W) uint8, as the file has it: it suffices for detectors and costs
    next to nothing."""

    form = "gray"
    by_tags = False


def to_yuv(image: np.ndarray, reformatter: VideoReformatter) -> VideoFrame:
    """Convert (H, W, 3) uint8 to yuv420p of limited range; an odd side is padded by its edge."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return reformatter.reformat(
        VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709 if height >= HD_LINES else Colorspace.ITU601,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=SHARP | Interpolation.BICUBIC,
        threads=1,
    )


def tag_colours(context: VideoCodecContext, height: int) -> None:
    """Write into a stream what `to_yuv` does."""
    context.colorspace = BT709 if height >= HD_LINES else SMPTE170M
    context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
