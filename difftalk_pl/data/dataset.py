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
from difftalk_pl.data.features.windows import AROUND, FPS, smoothing_windows
from difftalk_pl.data.latents import LatentCache, read_latents
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
    z: torch.Tensor  # (3, h, w), latents before quantisation
    z_masked: torch.Tensor  # (3, h, w)
    z_reference: torch.Tensor  # (3, h, w)
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
        self.clip, self.landmarks = clip, clip.pool_landmarks
        self.features = None if windows.features is None else clip.features(windows.features)
        self.latents = None if windows.latents is None else windows.latents.open(clip)
        self.video = clip.reader() if "image" in windows.parts else None
        self.scores: np.ndarray | None = None  # of all frames as references, where there is one for all

    def image(self, frame: int) -> np.ndarray:
        """(3, H, W) float32 in [-1, 1]."""
        assert self.video is not None
        return to_network(self.video[frame])


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

    Raises:
        UserError: no clip is long enough; or, when a window is read, a file is missing or damaged.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        parts: Sequence[Part],
        *,
        mask: MaskPolicy | None = None,
        features: str = "mfcc",
        latents: LatentCache | None = None,
        reference: ReferenceRule | None = None,
        seed: int = 0,
        fixed: bool = False,
        frames_per_clip: int | None = None,
        smoothing: tuple[int, int] = AROUND,
        picture: np.ndarray | None = None,
    ) -> None:
        self.parts = frozenset(parts)
        self.mask, self.rule = mask or MaskPolicy(), reference or ReferenceRule()
        self.features = features if self.parts & {"audio", "other_audio"} else None
        self.latents = latents if "latents" in self.parts else None
        self.seed, self.fixed, self.smoothing = seed, fixed, smoothing
        self.picture = None if picture is None else to_network(picture)
        self.has_reference = bool(self.parts & {"reference", "latents"})
        targets = [self.rule.targets(clip.frames) if self.has_reference else clip.frames for clip in clips]
        self.clips = [clip for clip, count in zip(clips, targets, strict=True) if count]
        if short := [f"{clip.name} ({clip.frames} frames)" for clip, n in zip(clips, targets, strict=True) if not n]:
            log.warning("not used, no two frames %d apart: %s", self.rule.min_gap, ", ".join(short))
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
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        offset = index - self.indices(number).start
        frame = self.rule.target(self.clips[number].frames, offset) if self.has_reference else offset
        return self.window(number, frame, 0 if self.fixed else epoch)

    def window(self, number: int, frame: int, epoch: int = 0) -> Window:
        """Read the window of a frame of the clip with this number."""
        files = self._open(number)
        clip, shown = files.clip, files.clip.source_frame(frame)
        random = np.random.default_rng([self.seed, epoch, zlib.crc32(clip.name.encode()), frame])
        window: Window = {"clip": clip.name, "frame": frame}
        if self.has_reference:
            window["reference_frame"] = self._reference(files, shown, random)
        if "image" in self.parts:
            self._add_images(window, files, shown)
        if files.latents is not None:
            latents = read_latents(files.latents, frame, window["reference_frame"])
            window["z"], window["z_masked"], window["z_reference"] = map(torch.from_numpy, latents)
        if "landmarks" in self.parts:
            points = files.landmarks[shown][list(LANDMARKS_WITHOUT_MOUTH)]
            window["landmarks"] = torch.from_numpy(np.array(points))
        if files.features is not None:
            window["audio"] = self._audio(files, frame)
        if "other_audio" in self.parts:
            other = ReferenceRule(min_gap=FPS, lenient=True).draw(frame, clip.frames, random)
            window["other_audio"] = self._audio(files, other)
        return window

    def _audio(self, files: _OpenClip, frame: int) -> torch.Tensor:
        assert files.features is not None
        return torch.from_numpy(smoothing_windows(files.features, np.array(files.clip.moment(frame)), self.smoothing))

    def _reference(self, files: _OpenClip, frame: int, random: np.random.Generator) -> int:
        clip = files.clip
        if self.picture is not None:
            return -1
        if self.rule.source == "each":
            return self.rule.draw(frame, clip.pool, random)
        if files.scores is None:
            files.scores = self.rule.scores(clip.pool_landmarks, self.seed, clip.name)
        return self.rule.best(frame, files.scores)

    def _add_images(self, window: Window, files: _OpenClip, shown: int) -> None:
        image = files.image(shown)
        window["image"] = torch.from_numpy(image)
        if "mask" in self.parts:
            landmarks = np.array(files.landmarks[shown])
            mask = self.mask(landmarks, image.shape[-1])
            window["masked"] = torch.from_numpy(hide(image, mask))
            window["mask"] = torch.from_numpy(mask[None].astype(np.float32))
            window["all_landmarks"] = torch.from_numpy(landmarks)
        if "reference" in self.parts:
            picture = files.image(window["reference_frame"]) if self.picture is None else self.picture
            window["reference"] = torch.from_numpy(picture)

    def _open(self, number: int) -> _OpenClip:
        if self._process != os.getpid():  # decoders must not be shared with the process that forked this one
            self._files, self._process = OrderedDict(), os.getpid()
        if number not in self._files:
            self._files[number] = _OpenClip(self.clips[number], self)
            if len(self._files) > OPEN_CLIPS:
                oldest = self._files.popitem(last=False)[1]
                if oldest.video is not None:
                    oldest.video.close()
        self._files.move_to_end(number)
        return self._files[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}


class ClipBatches(Dataset):
    """Consecutive frames of whole clips; item i is a ready batch: read it with DataLoader(batch_size=None), in order.

    A clip whose files cannot be read costs itself alone: it appears in `failed` once, with its reason, and is left out
    of the later batches. With several worker processes each of them finds out for itself.

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
        self.groups = [clips[start : start + together] for start in range(0, len(clips), together)]
        frames = [sum(len(windows.indices(clip)) for clip in group) for group in self.groups]
        self.ends = np.cumsum([-(-count // batch_size) for count in frames], dtype=int)
        self._group, self._failed = -1, set[str]()

    @classmethod
    def of_rank(
        cls, windows: WindowDataset, rank: int, world_size: int, batch_size: int, together: int
    ) -> "ClipBatches":
        """Take every world_size-th clip. All ranks get equally many batches, so that their collectives match."""
        dealt = [range(each, len(windows.clips), world_size) for each in range(world_size)]
        shards = [cls(windows, clips, batch_size, together) for clips in dealt]
        shards[rank].length = max(map(len, shards))
        return shards[rank]

    def __len__(self) -> int:
        return int(max([self.length, *self.ends[-1:]]))

    def __getitem__(self, item: int) -> ClipBatch:
        if not 0 <= item < len(self):
            raise IndexError(f"batch {item} of {len(self)}")
        group = int(np.searchsorted(self.ends, item, side="right"))
        if group == len(self.groups):
            return {"window": None, "failed": {}}
        number = item - (int(self.ends[group - 1]) if group else 0)
        if group != self._group or number == 0:
            self._start(group)
        rows, failed = [], dict[str, str]()
        for name, index in self._order[number * self.batch_size : (number + 1) * self.batch_size]:
            if name in self._failed:
                continue
            try:
                rows.append(self.windows[index])
            except (UserError, OSError) as error:
                failed[name] = reason_of(error)
                self._failed.add(name)
        rows = [row for row in rows if row["clip"] not in failed]
        return {"window": default_collate(rows) if rows else None, "failed": failed}

    def _start(self, group: int) -> None:
        """List the windows of a group of clips in their order, (clip's name, index)."""
        self._group, self._failed = group, set()
        columns = [[(self.windows.clips[n].name, i) for i in self.windows.indices(n)] for n in self.groups[group]]
        self._order = [one for row in zip_longest(*columns) for one in row if one is not None]
