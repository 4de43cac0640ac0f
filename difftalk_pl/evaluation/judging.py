"""The clips of one side, generated and judged one after the other, shared out to processes and gathered again."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip
from difftalk_pl.data.dataset import WindowDataset
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.evaluation.clips import ClipTable
from difftalk_pl.evaluation.judge import ALL, GROUND_TRUTH, ClipFacts, ClipJudge, ClipScore, Judge
from difftalk_pl.evaluation.ranks import gathered_objects
from difftalk_pl.evaluation.sync import LARGEST_SHIFT
from difftalk_pl.generation.consistency import Memory

log = logging.getLogger(__name__)

CURVE = 2 * LARGEST_SHIFT + 1


class Shown(NamedTuple):
    """Frames of a clip as a listener sees them.

    first: number of the first frame; inputs: what the network saw; methods: what came of it, the ground truth first;
    both (n, H, W, 3) uint8; mask: (n, H, W) bool or None; codes: (n, h, w) numbers of the codebook.
    """

    first: int
    inputs: dict[str, np.ndarray]
    methods: dict[str, np.ndarray]
    mask: np.ndarray | None
    codes: np.ndarray

    def rows(self, which: Sequence[bool], numbers: Tensor) -> "Shown":
        """Those of one clip."""
        rows = np.flatnonzero(which)
        inputs, methods = ({name: one[rows] for name, one in all.items()} for all in (self.inputs, self.methods))
        mask = None if self.mask is None else self.mask[rows]
        return Shown(int(numbers[rows[0]]), inputs, methods, mask, self.codes[rows])


class Listener(Protocol):
    """Whoever wants to see the clips of this process while they are judged."""

    def on_clip_start(self, clip: Clip, frames: int) -> None: ...

    def on_clip_frames(self, name: str, shown: Shown) -> None: ...

    def on_clip_end(self, name: str, samples: np.ndarray, scores: Mapping[str, ClipScore]) -> None: ...


class Generates(Protocol):
    """What a stage gives to be judged: frames by method, and the codes of the true ones."""

    device: torch.device
    methods: tuple[str, ...]

    def generate(self, window: Any, steps: int | None = None, memory: Memory | None = None) -> dict[str, Tensor]: ...

    def code_indices(self, image: Tensor) -> Tensor: ...


class ClipFailure(Exception):
    """A clip that cannot be judged, and why: its files are damaged, or its frames are no pictures."""


class Verdict(NamedTuple):
    """The clips of all processes. scores: by method and clip; frames: how many of each; reasons: of failed ones."""

    scores: dict[str, dict[str, ClipScore]]
    frames: dict[str, int]
    reasons: dict[str, str]


class Judging:
    """One evaluation. Every process judges its own clips whole, so that a clip's numbers do not depend on how many
    processes there are; a clip that cannot be read costs itself alone.

    Args:
        judge: measures.
        module: the stage, with the weights that are in place.
        windows: of the side; all frames of a clip, in order.
        loader: batches of the windows with these numbers, in their order.
        steps: of sampling, in place of the stage's own.
        context: in which frames are generated, for the trainer's precision; measures are none of its business.
        listeners: see the clips go by.
        done: is told how many frames are finished.
    """

    def __init__(
        self,
        judge: Judge,
        module: Generates,
        windows: WindowDataset,
        loader: Callable[[WindowDataset, Sequence[int]], Iterable[Any]],
        steps: int | None = None,
        context: Callable[[], AbstractContextManager] = nullcontext,
        listeners: Iterable[Listener] = (),
        done: Callable[[int], object] = lambda frames: None,
    ) -> None:
        self.judge, self.module, self.windows, self.loader = judge, module, windows, loader
        self.steps, self.context, self.listeners, self.done = steps, context, list(listeners), done
        self.tables: dict[str, ClipTable] = {}
        self.failed: dict[str, dict[int, dict[str, str]]] = {}  # by method, clip and measure
        self.reasons: dict[int, str] = {}

    def clips(self, numbers: Sequence[int], together: int = 1) -> None:
        """Generate and judge the clips with these numbers, so many of them at a time."""
        for start in range(0, len(numbers), together):
            self._group(numbers[start : start + together])

    def _group(self, numbers: Sequence[int]) -> None:
        try:
            judged = self._judge(numbers)
        except ClipFailure as failure:
            if len(numbers) > 1:  # it cannot be told whose
                for number in numbers:
                    self._group([number])
                return
            log.warning("%s: not scored: %s", self.windows.clips[numbers[0]].name, failure)
            self.reasons[numbers[0]] = str(failure)
            return
        for number, scores in judged.items():
            for method, score in scores.items():
                self._table(method).update(number, score.values, score.curve)
                self.failed.setdefault(method, {})[number] = score.failed

    def _table(self, method: str) -> ClipTable:
        if method not in self.tables:
            self.tables[method] = ClipTable(ALL, CURVE).to(self.module.device)
        return self.tables[method]

    @torch.no_grad()
    def _judge(self, numbers: Sequence[int]) -> dict[int, dict[str, ClipScore]]:
        """Clips of several people side by side, frame by frame."""
        facts = {number: self._facts(number) for number in numbers}
        judges: dict[str, ClipJudge] = {}
        memory = Memory()
        for number in numbers:
            self._tell("on_clip_start", self.windows.clips[number], len(self.windows.indices(number)))
        for batch in _readable(self.loader(self.windows, in_turn(self.windows, numbers))):
            for name, shown in self._generate(batch, memory).items():
                true = shown.methods[GROUND_TRUTH]
                if name not in judges:
                    known = next(one for one in facts.values() if one.name == name)
                    judges[name] = self.judge.open(ClipFacts(name, known.frames, true.shape[1], known.landmarks))
                judges[name].add(true, shown.methods, shown.mask)
                self._tell("on_clip_frames", name, shown)
                self.done(len(true))
        return {number: self._scores(judges[known.name], known) for number, known in facts.items()}

    def _scores(self, judge: ClipJudge, known: "_Known") -> dict[str, ClipScore]:
        scores = judge.scores(dict.fromkeys(judge.methods, known.samples))
        self._tell("on_clip_end", known.name, known.samples, scores)
        return scores

    def _facts(self, number: int) -> "_Known":
        clip, frames = self.windows.clips[number], len(self.windows.indices(number))
        known = _known(clip, frames)
        _refuse_width(clip, self.windows.features, getattr(self.module, "audio_channels", None))
        return known

    def _tell(self, hook: str, *arguments: Any) -> None:
        """Who cannot show what it hears, on a full disk, costs no score; it is told no more."""
        for listener in list(self.listeners):
            try:
                getattr(listener, hook)(*arguments)
            except (OSError, UserError) as error:
                log.warning("%s shows nothing from here on: %s", type(listener).__name__, error)
                self.listeners.remove(listener)

    def _generate(self, batch: Any, memory: Memory) -> dict[str, Shown]:
        """Frames by clip and method as 8 bit pixels."""
        moved = {key: value.to(self.module.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        with self.context():
            generated = self.module.generate(moved, self.steps, memory)
            codes = self.module.code_indices(moved["image"]).cpu().numpy()
        for name, frames in generated.items():
            if not frames.isfinite().all():
                raise ClipFailure(
                    f"{name}: frames with numbers that are not finite, from frame {int(batch['frame'][0])}"
                )
        inputs = {key: to_pixels(batch[key]) for key in ("masked", "reference") if key in batch}
        methods = {GROUND_TRUTH: to_pixels(batch["image"])} | {name: to_pixels(one) for name, one in generated.items()}
        mask = batch["mask"][:, 0].numpy() > 0.5 if "mask" in batch else None
        whole = Shown(int(batch["frame"][0]), inputs, methods, mask, codes)
        names = list(dict.fromkeys(batch["clip"]))
        return {name: whole.rows([name == one for one in batch["clip"]], batch["frame"]) for name in names}

    def finish(self) -> Verdict:
        """The scores of all processes, the same in each; every process must call it, one without a clip as well."""
        own: dict[str, Any] = {"methods": list(self.tables), "failed": self.failed, "reasons": self.reasons}
        all_own = gathered_objects(own)
        reasons = {number: reason for one in all_own for number, reason in one["reasons"].items()}
        names = [clip.name for clip in self.windows.clips]
        methods = list(dict.fromkeys(method for one in all_own for method in one["methods"]))
        methods = methods or [GROUND_TRUTH, *self.module.methods]  # where every clip failed, they fail by name
        scores = {method: self._gathered(method, all_own, reasons) for method in methods}
        frames = {name: 0 if n in reasons else len(self.windows.indices(n)) for n, name in enumerate(names)}
        return Verdict(scores, frames, {names[number]: reason for number, reason in sorted(reasons.items())})

    def _gathered(self, method: str, all_own: list[dict], reasons: dict[int, str]) -> dict[str, ClipScore]:
        failed = {number: why for one in all_own for number, why in one["failed"].get(method, {}).items()}
        found = {
            number: ClipScore(values, failed.get(number, {}), curve)
            for number, (values, curve) in self._table(method).compute().items()
        }
        found |= {number: ClipScore.nothing(reason) for number, reason in reasons.items()}
        return {self.windows.clips[number].name: found[number] for number in sorted(found)}


class _Known(NamedTuple):
    """What is known of a clip before it is generated: landmarks (frames, 68, 2) and sound (frames * 640,)."""

    name: str
    frames: int
    landmarks: np.ndarray
    samples: np.ndarray


def in_turn(windows: WindowDataset, numbers: Sequence[int]) -> list[int]:
    """Windows of clips: the first of each, then the second of each, and so on."""
    places = [windows.indices(number) for number in numbers]
    longest = max(len(each) for each in places)
    return [each[frame] for frame in range(longest) for each in places if frame < len(each)]


def _known(clip: Clip, frames: int) -> _Known:
    """Of a clip's beginning."""
    try:
        landmarks, samples = clip.landmarks[:frames], clip.audio()[: frames * SAMPLES_PER_FRAME]
    except (UserError, OSError) as error:
        raise ClipFailure(reason_of(error)) from error
    if not np.isfinite(landmarks).all():
        raise ClipFailure(f"{clip.folder / 'landmarks.npy'}: not finite everywhere; prepare its clip again")
    return _Known(clip.name, frames, landmarks, samples)


def _refuse_width(clip: Clip, kind: str | None, channels: int | None) -> None:
    """Features of another width than the model takes. `kind` is None where the windows have no sound."""
    if kind is None or channels is None:
        return
    try:
        width = clip.features(kind).shape[1]
    except (UserError, OSError) as error:
        raise ClipFailure(reason_of(error)) from error
    if width != channels:
        raise ClipFailure(f"{clip.features_file(kind)}: {width} channels, the model takes {channels}; add them again")


def _readable(batches: Iterable[Any]) -> Iterator[Any]:
    """What stops while it is read is the clip's failure; what stops while a batch is used is not."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator, None)
        except (UserError, OSError) as error:
            raise ClipFailure(reason_of(error)) from error
        if batch is None:
            return
        yield batch
