"""The one Dataset: from prepared clips to the tensors of a frame, for training, evaluation and inference alike."""

import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.driven import Driving
from difftalk_pl.data.features.windows import AROUND, FPS, smoothing_windows
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy, hide
from difftalk_pl.data.pixels import to_network
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.data.sampler import Draw
from difftalk_pl.errors import UserError, reason_of

log = logging.getLogger(__name__)

LANDMARKS_WITHOUT_MOUTH = (*range(0, 4), *range(13, 48))  # as released: 39 points
OPEN_CLIPS = 128  # that one process keeps open; four files each

Part = Literal["image", "mask", "reference", "latents", "audio", "other_audio", "landmarks"]
FRAME: tuple[Part, ...] = ("image",)
MASKED_FRAME: tuple[Part, ...] = ("image", "mask")
TRAINING: tuple[Part, ...] = ("latents", "audio", "landmarks")
GENERATION: tuple[Part, ...] = ("image", "mask", "reference", "audio", "landmarks")
EVALUATION: tuple[Part, ...] = (*GENERATION, "other_audio")


class Window(TypedDict, total=False):
    """The inputs of a network for one frame; the Dataset's `parts` tell which keys are there."""

    image: torch.Tensor  # (3, H, W) in [-1, 1]
    masked: torch.Tensor  # (3, H, W), 0 where hidden
    reference: torch.Tensor  # (3, H, W)
    mask: torch.Tensor  # (1, H, W), 1 where hidden and generated
    z: torch.Tensor  # (3, h, w) float16, as cached: latents before quantisation
    z_masked: torch.Tensor  # (3, h, w) float16
    z_reference: torch.Tensor  # (3, h, w) float16
    audio: torch.Tensor  # (8, 16, C), frames i-4 … i+3 unless `smoothing` says otherwise
    other_audio: torch.Tensor  # (8, 16, C), of another moment of the clip: the control of an evaluation
    landmarks: torch.Tensor  # (39, 2), fractions of the side, no mouth
    all_landmarks: torch.Tensor  # (68, 2), beside `mask`: for measures, never for networks
    clip: str
    frame: int
    reference_frame: int  # -1: a picture


class ClipBatch(TypedDict):
    """Consecutive frames of clips, None if there are none, and the clips that failed with their reasons."""

    window: Window | None
    failed: dict[str, str]


class _OpenClip:
    """One clip's files as one process has them open."""

    def __init__(self, clip: Clip, windows: "WindowDataset") -> None:
        self.landmarks, self.features, self.latents = clip.landmarks, None, None
        if windows.parts & {"audio", "other_audio"}:
            self.features = windows.driving.speech if windows.driving else clip.features(windows.features)
        if windows.latents is not None:
            self.latents = windows.latents.open(clip)
        self.video = clip.reader() if "image" in windows.parts else None
        self.scores = windows.rule.scores(self.landmarks, windows.seed, clip.name)


class WindowDataset(Dataset):
    """Windows of prepared clips by index; start-up and memory do not depend on the number of frames.

    Args:
        clips: the clips, in the order that numbers the windows.
        parts: the content of a window; see the constants of this module.
        mask: the policy that hides the mouth.
        features: the kind of audio features.
        latents: the cache that the part `latents` reads.
        reference: which frames may be references.
        seed: of all randomness; a window is a function of (seed, epoch, clip, frame) and of nothing else.
        fixed: ignore the epoch, for validation and inference.
        frames_per_clip: only the first targets of every clip.
        smoothing: frames before and after the target whose audio windows are given.
        picture: (H, W, 3) uint8, the reference of all windows in place of a frame.
        driving: other audio for the one clip; frames are then those of the result. Needs a lenient reference rule.

    Raises:
        UserError: no clip is long enough; or, when a window is read, a file is missing or damaged.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        parts: Sequence[Part],
        *,
        mask: MaskPolicy = MaskPolicy(),
        features: str = "mfcc",
        latents: LatentCache | None = None,
        reference: ReferenceRule = ReferenceRule(),
        seed: int = 0,
        fixed: bool = False,
        frames_per_clip: int | None = None,
        smoothing: tuple[int, int] = AROUND,
        picture: np.ndarray | None = None,
        driving: Driving | None = None,
    ) -> None:
        self.parts, self.mask, self.features, self.rule = frozenset(parts), mask, features, reference
        self.latents, self.driving = latents, driving
        self.seed, self.fixed, self.smoothing = seed, fixed, smoothing
        self.picture = None if picture is None else to_network(picture)
        self.has_reference = bool(self.parts & {"reference", "latents"})
        lengths = [clip.frames for clip in clips] if driving is None else [len(driving.shown)]
        targets = [reference.targets(frames) if self.has_reference else frames for frames in lengths]
        self.clips = [clip for clip, count in zip(clips, targets, strict=True) if count]
        if short := [f"{clip.name} ({clip.frames} frames)" for clip, n in zip(clips, targets, strict=True) if not n]:
            log.warning("not used, no two frames %d apart: %s", reference.min_gap, ", ".join(short))
        if not self.clips:
            raise UserError(f"no clip to read: {len(clips)} given, of which {len(short)} are too short for references")
        self.ends = np.cumsum([min(count, frames_per_clip or count) for count in targets if count])
        self._files: OrderedDict[int, _OpenClip] = OrderedDict()
        self._process = os.getpid()

    def indices(self, number: int) -> range:
        """Return the indices of the windows of one clip, in the order of its frames."""
        return range(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, draw: int | Draw) -> Window:
        index, epoch = draw if isinstance(draw, Draw) else (draw, 0)
        number = int(np.searchsorted(self.ends, index, side="right"))
        frames = self.clips[number].frames
        frame = index - (int(self.ends[number - 1]) if number else 0)
        frame = self.rule.target(frames, frame) if self.has_reference else frame
        return self.window(number, frame, 0 if self.fixed else epoch)

    def window(self, number: int, frame: int, epoch: int = 0) -> Window:
        """Read the window of a frame of the clip with this number."""
        files, clip, driving = self._open(number), self.clips[number], self.driving
        shown = frame if driving is None else int(driving.shown[frame])
        random = np.random.default_rng([self.seed, epoch, zlib.crc32(clip.name.encode()), frame])
        window: Window = {"clip": clip.name, "frame": frame}
        if self.has_reference:
            chosen = self.picture is None
            window["reference_frame"] = self.rule.choose(shown, clip.frames, random, files.scores) if chosen else -1
        if files.video is not None:
            self._add_images(window, files, shown)
        if files.latents is not None:
            self._add_latents(window, files)
        if "landmarks" in self.parts:
            window["landmarks"] = torch.from_numpy(files.landmarks[shown][list(LANDMARKS_WITHOUT_MOUTH)])
        if files.features is not None:
            moment = frame if driving is None or driving.fps == FPS else frame * FPS / driving.fps
            window["audio"] = torch.from_numpy(smoothing_windows(files.features, np.array(moment), self.smoothing))
        if files.features is not None and "other_audio" in self.parts:
            other = ReferenceRule(min_gap=FPS, lenient=True).choose(frame, clip.frames, random)
            window["other_audio"] = torch.from_numpy(smoothing_windows(files.features, np.array(other), self.smoothing))
        return window

    def _add_images(self, window: Window, files: _OpenClip, shown: int) -> None:
        assert files.video is not None
        image = to_network(files.video[shown])
        window["image"] = torch.from_numpy(image)
        if "mask" in self.parts:
            landmarks = np.array(files.landmarks[shown])
            mask = self.mask(landmarks, image.shape[-1])
            window["masked"] = torch.from_numpy(hide(image, mask))
            window["mask"] = torch.from_numpy(mask[None].astype(np.float32))
            window["all_landmarks"] = torch.from_numpy(landmarks)
        if "reference" in self.parts:
            chosen = self.picture is None
            picture = to_network(files.video[window["reference_frame"]]) if chosen else self.picture
            window["reference"] = torch.from_numpy(picture)

    def _add_latents(self, window: Window, files: _OpenClip) -> None:
        """Read by position: a mapping reads up to 8 MiB ahead for 24 KiB, and that counts as the process's memory."""
        latents, frame = files.latents, window["frame"]
        assert latents is not None
        rows = np.empty((3, *latents.shape[2:]), latents.dtype)
        with open(latents.filename, "rb", buffering=0) as file:  # type: ignore[arg-type]
            for row, place in zip(rows, (frame, latents.shape[1] + frame, window["reference_frame"]), strict=True):
                os.preadv(file.fileno(), [row.data], latents.offset + place * row.nbytes)
        window["z"], window["z_masked"], window["z_reference"] = torch.from_numpy(rows)

    def _open(self, number: int) -> _OpenClip:
        if self._process != os.getpid():  # decoders must not be shared with the process that forked this one
            self._files, self._process = OrderedDict(), os.getpid()
        if number not in self._files:
            self._files[number] = _OpenClip(self.clips[number], self)
            if len(self._files) > OPEN_CLIPS:
                self._files.popitem(last=False)
        self._files.move_to_end(number)
        return self._files[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}


class ClipBatches(Dataset):
    """Consecutive frames of whole clips; item i is a ready batch: read it with DataLoader(batch_size=None), in order.

    A clip whose files cannot be read does not end the others: it appears in `failed` once, with its reason, and is
    left out of the later batches. With several worker processes each of them finds out for itself.

    Args:
        windows: the frames of the clips.
        clips: numbers of the clips to take.
        batch_size: frames.
        together: clips whose frames are interleaved, frame 0 of each, then frame 1 of each, for samplers that need the
            previous frame. A batch holds no others.

    Attributes:
        length: the least number of items; those beyond the clips have no frames.
    """

    def __init__(self, windows: WindowDataset, clips: Sequence[int], batch_size: int, together: int = 1) -> None:
        self.windows, self.batch_size, self.length = windows, batch_size, 1
        groups = [clips[start : start + together] for start in range(0, len(clips), together)]
        frames = [sum(len(windows.indices(clip)) for clip in group) for group in groups]
        self.places = [(g, i) for g, count in zip(groups, frames, strict=True) for i in range(0, count, batch_size)]
        self._group: Sequence[int] | None = None
        self._failed: set[int] = set()

    def __len__(self) -> int:
        return max(self.length, len(self.places))

    def __getitem__(self, item: int) -> ClipBatch:
        if item >= len(self):
            raise IndexError(f"batch {item} of {len(self)}")
        if item >= len(self.places):
            return {"window": None, "failed": {}}
        group, first = self.places[item]
        if group is not self._group or first == 0:  # a worker's first batch may be in the middle
            columns = [[(clip, index) for index in self.windows.indices(clip)] for clip in group]
            self._order = [one for row in zip_longest(*columns) for one in row if one is not None]
            self._group, self._failed = group, set()
        rows, failed = {}, dict[str, str]()
        for clip, index in self._order[first : first + self.batch_size]:
            try:
                if clip not in self._failed:
                    rows[index] = self.windows[index]
            except (UserError, OSError) as error:
                failed[self.windows.clips[clip].name] = reason_of(error)
                self._failed.add(clip)
        kept = [row for row in rows.values() if row["clip"] not in failed]
        return {"window": default_collate(kept) if kept else None, "failed": failed}
