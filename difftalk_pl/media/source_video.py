"""A video that is read several times: once in its order, then in any order, such as back and forth, in little memory.

The first pass notes which source frame every output frame shows. Later ones find those frames again by their
timestamps: forward with an open decoder, backward in blocks that are decoded forward and emptied from the end.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import dropwhile, groupby, islice, repeat
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from difftalk_pl.media.colour import ToRGB
from difftalk_pl.media.containers import MediaError, open_file, open_media, video_stream
from difftalk_pl.media.video import timeline

HELD_BYTES = 48_000_000  # decoded pictures that a block holds
BEFORE = -(2**63)  # earlier than any timestamp
EARLIER = (Fraction(0), Fraction(1), Fraction(4))  # s before the key frame, where a seek may have to go


class SourceVideo:
    """The frames of `read_frames`, to be read again in another order.

    Args:
        fps: output frames a second.
    """

    def __init__(self, path: str | Path, fps: float = 25.0) -> None:
        self.path, self.fps = Path(path), fps
        self.keys = SourceKeys()

    def __len__(self) -> int:
        """Frames that a pass has shown so far."""
        return len(self.keys)

    def frames(self, last: int | None = None) -> Iterator[np.ndarray]:
        """What `read_frames` yields, (H, W, 3) uint8; with `last`, the first so many frames, and the rest of the file
        is neither decoded nor judged."""
        with open_media(self.path) as container:
            stream = video_stream(container, self.path)
            to_rgb, count = ToRGB(stream), 0
            for ordinal, (frame, times) in enumerate(timeline(container, stream, self.path, self.fps, last)):
                self.keys.note(ordinal, frame, range(count, count + times))
                count += times
                if times:
                    yield from repeat(to_rgb(frame), times)

    def ordered(self, order: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames by number, with the pixels of the first pass, (H, W, 3) uint8.

        Made for runs forward and backward: any other order works, but decodes a stretch for every frame. The same array
        object may come several times.

        Raises:
            IndexError: a number that no pass has shown yet.
            MediaError: a frame cannot be decoded a second time.
        """
        numbers = array("q", order)
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(self):
            raise IndexError(f"{self.path}: frames {min(numbers)} to {max(numbers)}, of which {len(self)} were read")
        cursor = Cursor(self.path, self.keys)
        try:
            for places, rises in _runs(numbers):
                keys = (self.keys.of(numbers[place]) for place in places)
                for frame, times in (self._forward if rises else self._backward)(cursor, keys):
                    yield from repeat(cursor.to_rgb(frame), times)
        finally:
            cursor.close()

    def _forward(self, cursor: "Cursor", keys: Iterable[int]) -> Iterator[tuple[VideoFrame, int]]:
        for key, same in groupby(keys):
            yield cursor.reach(key), len(list(same))

    def _backward(self, cursor: "Cursor", keys: Iterable[int]) -> Iterator[tuple[VideoFrame, int]]:
        falling = ((key, len(list(same))) for key, same in groupby(keys))
        while block := list(islice(falling, max(HELD_BYTES // self.keys.frame_bytes, 1))):
            held = self._hold(cursor, [key for key, _ in reversed(block)])
            for key, times in block:
                yield held.pop(key), times

    def _hold(self, cursor: "Cursor", keys: list[int]) -> dict[int, VideoFrame]:
        """The frames of a block as they are decoded, which is half the size of RGB; `keys` rise."""
        return {key: cursor.reach(key) for key in keys}


class SourceKeys:
    """What tells the source frame of every output frame, 16 bytes for each.

    A key is the source frame's pts. In a file whose timestamps are missing or do not rise it is the frame's place in
    the order of decoding, which can only be found from the start.
    """

    def __init__(self) -> None:
        self.rising = True
        self.starts = array("q")  # pts of key frames
        self.frame_bytes = 1
        self._pts, self._ordinals, self._newest, self._decoded = array("q"), array("q"), BEFORE, 0

    def __len__(self) -> int:
        return len(self._pts)

    def of(self, k: int) -> int:
        """The key of the source frame that output frame k shows."""
        return self._pts[k] if self.rising else self._ordinals[k]

    def note(self, ordinal: int, frame: VideoFrame, shown: range) -> None:
        """Decoded frame `ordinal` of a pass is these output frames; what an earlier pass has noted is known."""
        pts = BEFORE if frame.pts is None else frame.pts
        if ordinal >= self._decoded:
            self._decoded, self.rising, self._newest = ordinal + 1, self.rising and pts > self._newest, pts
            self.frame_bytes = max(self.frame_bytes, sum(plane.buffer_size for plane in frame.planes))
            if frame.key_frame:
                self.starts.append(pts)
        for _ in shown[max(len(self) - shown.start, 0) :]:
            self._pts.append(pts)
            self._ordinals.append(ordinal)


class Cursor:
    """A decoder that goes to frames by their keys, as fast as their order allows: near ones forward, then from the key
    frame before them, then from further back, and at last from the start of the file."""

    def __init__(self, path: Path, keys: SourceKeys) -> None:
        self.path, self.keys = path, keys
        self._frame: VideoFrame | None = None
        self._restart()

    def reach(self, key: int) -> VideoFrame:
        if self._frame is not None and self._key == key:
            return self._frame
        for _ in self._positions(key):
            if (frame := self._find(key)) is not None:
                return frame
        raise MediaError(f"{self.path}: cannot be decoded a second time; leave the file alone while it is read")

    def close(self) -> None:
        self._container.close()

    def _positions(self, key: int) -> Iterator[None]:
        """Puts the decoder before a frame, in one way after another."""
        if self._key < key:
            yield
        before = bisect_right(self.keys.starts, key) if self.keys.rising else 0
        if before:
            for earlier in EARLIER:
                if self._seek(self.keys.starts[before - 1] - int(earlier / (self._stream.time_base or 1))):
                    yield
        self.close()
        self._restart()
        yield

    def _find(self, key: int) -> VideoFrame | None:
        """Decodes up to a frame; None if it does not come."""
        try:
            for ordinal, frame in self._decoded:
                here = frame.pts if self.keys.rising else ordinal
                self._key, self._frame = BEFORE if here is None else here, frame
                if self._key >= key:
                    return frame if self._key == key else None
        except av.FFmpegError:  # of a decoder that began in the middle
            pass
        return None

    def _seek(self, pts: int) -> bool:
        """From the key frame before a time on: what leads up to it may need pictures that were never decoded."""
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.FFmpegError:
            return False
        self._decoded = enumerate(dropwhile(lambda frame: not frame.key_frame, self._container.decode(self._stream)))
        return True

    def _restart(self) -> None:
        self._container = open_file(self.path)
        self._stream = video_stream(self._container, self.path)
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", 2
        self._decoded = enumerate(self._container.decode(self._stream))
        self._key, self._frame = BEFORE, None
        self.to_rgb = ToRGB(self._stream)


def _runs(numbers: array) -> Iterator[tuple[range, bool]]:
    """Places whose numbers rise, or fall, without a turn; and whether they rise."""
    start = 0
    while start < len(numbers):
        stop, rises = start + 1, None
        while stop < len(numbers):
            step = numbers[stop] - numbers[stop - 1]
            if step and rises is None:
                rises = step > 0
            elif step and (step > 0) != rises:
                break
            stop += 1
        yield range(start, stop), rises is not False
        start = stop
