"""A video that is drawn while it is written: frames of the source with the generated mouth in them."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from difftalk_pl import __version__
from difftalk_pl.animate.interpolation import interpolate
from difftalk_pl.animate.paste import Paste
from difftalk_pl.animate.preview import preview_sheet, refuse_picture
from difftalk_pl.animate.timing import StageClock
from difftalk_pl.animate.watermark import Watermark
from difftalk_pl.errors import UserError
from difftalk_pl.generation.drawing import Square
from difftalk_pl.media.audio import audio_pieces
from difftalk_pl.media.video import SourceVideo
from difftalk_pl.media.writer import TAG, refuse_target, write_video
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)
WORST_CRF = 51  # of x264
SOUND_RATE = 44100  # of the result; features are made from 16 kHz


@dataclass
class TalkingVideo:
    """What `TalkingHeadPipeline` returns. Nothing is drawn before frames are asked for.

    source: the video; order: (N,) which of its frames each frame shows; fps: of the result.
    boxes, points: (T, 3) and (T, 68, 2), square and landmarks of every frame of the source, pixels.
    shown: (N,) bool, whose mouth is generated; passed: how many frames of the source's are not, by the reason.
    shots: (N,) number of the stretch between cuts.
    squares: draws the squares of these frames, a list a shot.
    model: hash of the weights; settings: how it is made, as plain values.
    clock: seconds by stage so far.
    """

    source: SourceVideo
    audio: Path
    order: np.ndarray
    fps: float
    boxes: np.ndarray
    points: np.ndarray
    shown: np.ndarray
    shots: np.ndarray
    passed: dict[str, int]
    squares: Callable[[list[list[int]]], Iterator[Square]]
    paste: Paste
    model: str
    settings: dict[str, Any]
    clock: StageClock
    folder: tempfile.TemporaryDirectory

    def __post_init__(self) -> None:
        self.planned = dict(self.clock.seconds)

    def __len__(self) -> int:
        """Frames, before any interpolation."""
        return len(self.order)

    def pasted(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray, Square | None]]:
        """Frames of the result, (H, W, 3) uint8, the source's own, and the square that was pasted, if any.

        Args:
            numbers: of the frames, in their order; by default all.
        """
        wanted = range(len(self)) if numbers is None else numbers
        squares = iter(self.squares(self._by_shot([number for number in wanted if self.shown[number]])))
        order = [int(self.order[number]) for number in wanted]
        for number, frame in zip(wanted, self.clock.each("read", self.source.ordered(order))):
            if not self.shown[number]:
                yield frame, frame, None
                continue
            square = next(squares)
            with self.clock("blend"):
                box = self.boxes[self.order[number]]
                result = self.paste(frame, square.generated, square.true, square.mask, box)
            yield result, frame, square

    def frames(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8, one after the other; every pixel outside of the blend is that of the decoded source."""
        for result, _, _ in self.pasted():
            yield result

    def save(
        self,
        path: str | Path,
        interpolation: int = 1,
        interpolator: Path | None = None,
        watermark: bool = True,
        crf: float = 18,
        tags: dict[str, str] | None = None,
    ) -> int:
        """Draw and write it: H.264 and AAC, with the sound, whole or not at all. Memory does not grow with its length.

        Args:
            interpolation: frames for every drawn one, by motion compensation.
            interpolator: a TorchScript model that interpolates in its place.
            watermark: mark all frames as generated; docs/watermark.md.
            crf: x264's quality, lower is better.
            tags: more metadata.

        Returns:
            the number of frames written

        Raises:
            UserError: a value or a path that cannot be; a file that is there and not of this project is left alone.
        """
        path = Path(path)
        refuse_target(path, [self.source.path, self.audio])
        if interpolation < 1 or not 0 <= crf <= WORST_CRF:
            raise UserError(f"interpolate {interpolation}, crf {crf:g}: expected 1 or more, 0 to {WORST_CRF}")
        self.clock.seconds = dict(self.planned)
        frames: Iterator[np.ndarray] = self._told()
        if interpolation > 1:
            frames = self.clock.each("interpolate", interpolate(frames, interpolation, self.fps, interpolator))
        if watermark:
            mark = Watermark(self.model)
            frames = (self._marked(mark, frame) for frame in frames)
        about = self._tags(watermark, interpolation) | (tags or {})
        with closing(audio_pieces(self.audio, SOUND_RATE)) as sound, self.clock("write"):
            rate = self.fps * interpolation
            count = write_video(path, frames, fps=rate, audio=sound, rate=SOUND_RATE, crf=crf, tags=about)
        self._report(path, count)
        return count

    def preview(self, path: str | Path, columns: int = 8) -> None:
        """Draw some frames, evenly spread, and write them as one picture."""
        refuse_picture(Path(path), [self.source.path, self.audio])
        preview_sheet(self, Path(path), columns)
        self._say_passed()
        log.info(
            "%s: %d of the first %d frames, %.1f s", path, min(columns, len(self)), len(self), len(self) / self.fps
        )

    def _marked(self, mark: Watermark, frame: np.ndarray) -> np.ndarray:
        with self.clock("mark"):
            return mark.mark(frame)

    def _by_shot(self, numbers: list[int]) -> list[list[int]]:
        return [list(shot) for _, shot in groupby(numbers, key=lambda number: self.shots[number])]

    def _told(self) -> Iterator[np.ndarray]:
        """With a progress bar."""
        with progress_bar(transient=True) as bar:
            task = bar.add_task("frames", total=len(self))
            for frame in self.frames():
                yield frame
                bar.advance(task)

    def _tags(self, watermark: bool, interpolation: int) -> dict[str, str]:
        about = {
            "generated": True,
            "by": f"difftalk_pl {__version__}",
            "model": self.model,
            "watermark": watermark,
            "interpolation": interpolation,
            "settings": self.settings,
        }
        return {TAG: json.dumps(about), "comment": "The mouth in this video is generated by difftalk_pl."}

    def _report(self, path: Path, count: int) -> None:
        self._say_passed()
        seconds = len(self) / self.fps
        spent = ", ".join(f"{stage} {spent / seconds:.2f}" for stage, spent in self.clock.seconds.items())
        log.info("%s: %d frames, %.2f s; seconds for a second of it: %s", path, count, seconds, spent)

    def _say_passed(self) -> None:
        for reason, frames in self.passed.items():
            log.warning("%s: %s in %d of its frames, which stay as they are", self.source.path, reason, frames)
