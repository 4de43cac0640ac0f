"""Scores of whole clips, from batches of generated frames, gathered over processes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, distributed

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import ALL, GROUND_TRUTH, ClipJudge, ClipScore, Judge
from difftalk_pl.evaluation.results import EvaluationResult, summarise

log = logging.getLogger(__name__)


class ClipFrames(NamedTuple):
    """Consecutive frames of one clip as 8-bit pixels.

    rows: their places in the batch; first: number of the first frame; methods: (n, H, W, 3) uint8 by method, the ground
    truth first; mask: (n, H, W) bool or None.
    """

    clip: str
    rows: list[int]
    first: int
    methods: dict[str, np.ndarray]
    mask: np.ndarray | None


def split_by_clip(window: Mapping[str, Any], generated: Mapping[str, Tensor]) -> Iterator[ClipFrames]:
    """Yield the frames of each clip of a batch, whose rows may alternate between clips."""
    methods = {GROUND_TRUTH: window["image"], **generated}
    pixels = {name: to_pixels(frames) for name, frames in methods.items()}
    mask = window["mask"][:, 0].cpu().numpy() > 0.5 if "mask" in window else None
    for clip in dict.fromkeys(window["clip"]):
        rows = [row for row, name in enumerate(window["clip"]) if name == clip]
        frames = {name: one[rows] for name, one in pixels.items()}
        yield ClipFrames(clip, rows, int(window["frame"][rows[0]]), frames, None if mask is None else mask[rows])


class ClipScores:
    """One evaluation. Every process scores its own clips whole, so that a clip's numbers do not depend on how many
    processes there are. A clip that cannot be scored does not end the others.

    Args:
        judge: measures.
        clips: of all processes, with the number of frames of each; they give the order of the results.
    """

    def __init__(self, judge: Judge, clips: Sequence[tuple[Clip, int]] = ()) -> None:
        self.judge = judge
        self.clips = {clip.name: (clip, frames) for clip, frames in clips}
        self.open: dict[str, tuple[ClipJudge, np.ndarray]] = {}  # with its sound
        self.scores: dict[str, dict[str, ClipScore]] = {}  # by clip and method
        self.frames: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def add(self, batch: Mapping[str, Any], generated: Mapping[str, Tensor] | None) -> None:
        """Measure a ClipBatch and its frames by method, (B, 3, H, W) in [-1, 1]."""
        for name, reason in batch["failed"].items():
            self.fail(name, reason)
        for part in () if generated is None else split_by_clip(batch["window"], generated):
            if part.clip in self.reasons:
                continue
            try:
                for name, frames in (generated or {}).items():
                    if not frames[part.rows].isfinite().all():
                        raise UserError(f"{name}: frames with numbers that are not finite, from frame {part.first}")
                true = part.methods.pop(GROUND_TRUTH)
                if part.clip not in self.open:
                    clip, count = self.clips[part.clip]
                    landmarks = np.array(clip.landmarks[:count])
                    if not np.isfinite(landmarks).all():
                        raise UserError(
                            f"{clip.folder / 'landmarks.npy'}: not finite; remove its folder and prepare again"
                        )
                    self.open[part.clip] = ClipJudge(self.judge, count, true.shape[1], landmarks), clip.audio(0, count)
                judge, samples = self.open[part.clip]
                judge.add(true, part.methods, part.mask)
            except (UserError, OSError) as error:
                self.fail(part.clip, str(error))
            else:
                if judge.seen == judge.frames:
                    del self.open[part.clip]
                    self.keep(part.clip, judge, dict.fromkeys(judge.methods, samples))

    def keep(self, name: str, judge: ClipJudge, samples: Mapping[str, np.ndarray | None]) -> None:
        """Keep the scores of a clip whose frames have all come. `samples`: as for ClipJudge.scores."""
        self.scores[name], self.frames[name] = judge.scores(samples), judge.seen

    def fail(self, name: str, reason: str) -> None:
        """Note why a clip is not scored."""
        log.warning("%s: not scored: %s", name, reason)
        self.open.pop(name, None)
        self.reasons[name], self.frames[name] = reason, 0

    def finish(self, methods: Sequence[str]) -> EvaluationResult:
        """Return the scores of all processes, the same in each. Every process must call it.

        A clip whose last frames did not come, since batches were limited, is scored by those that did.

        Args:
            methods: names that failed clips get where all clips failed.
        """
        for name, (judge, samples) in self.open.items():
            self.keep(name, judge, dict.fromkeys(judge.methods, samples[: judge.seen * SAMPLES_PER_FRAME]))
        ranks: list[Any] = [(self.scores, self.frames, self.reasons)]
        if distributed.is_available() and distributed.is_initialized():
            ranks *= distributed.get_world_size()
            distributed.all_gather_object(ranks, ranks[0])
        scores, frames, reasons = ({name: one for part in parts for name, one in part.items()} for parts in zip(*ranks))
        frames = {name: frames[name] for name in (self.clips or frames) if name in frames}
        found = dict.fromkeys(method for by_method in scores.values() for method in by_method)
        summaries = {}
        for method in found or (GROUND_TRUTH, *methods):
            of_failed = {name: ClipScore(dict.fromkeys(ALL), dict.fromkeys(ALL, reasons[name])) for name in reasons}
            clips = {name: of_failed[name] if name in reasons else scores[name][method] for name in frames}
            summaries[method] = summarise(clips, frames)
        return EvaluationResult(summaries, frames, {name: reasons[name] for name in frames if name in reasons})
