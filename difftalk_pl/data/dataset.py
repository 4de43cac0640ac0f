"""The one Dataset: from prepared clips to the tensors of a frame, for training, evaluation and inference alike."""

import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from difftalk_pl.data.clip_files import ClipFiles
from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import AROUND, FPS
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy, hide
from difftalk_pl.data.pixels import to_network
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.data.sampler import Draw
from difftalk_pl.errors import UserError, reason_of

log = logging.getLogger(__name__)

LANDMARKS_WITHOUT_MOUTH = (*range(0, 4), *range(13, 48))  # as released: 39 points
OPEN_VIDEOS = 48  # that one process keeps open

Part = Literal["image", "masked", "reference", "mask", "latents", "audio", "other_audio", "landmarks"]
FRAME: tuple[Part, ...] = ("image",)
MASKED_FRAME: tuple[Part, ...] = ("image", "mask")
CACHING: tuple[Part, ...] = ("image", "masked")
TRAINING: tuple[Part, ...] = ("latents", "audio", "landmarks")
TRAINING_ON_IMAGES: tuple[Part, ...] = ("image", "masked", "reference", "audio", "landmarks")
GENERATION: tuple[Part, ...] = (*TRAINING_ON_IMAGES, "mask")
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


class WindowDataset(Dataset):
    """Windows of prepared clips by index; start-up and memory do not depend on the number of frames.

    Args:
        clips: the clips, in the order that numbers the windows.
        parts: the content of a window; see the constants of this module.
        mask: the policy that hides the mouth.
        features: the kind of audio features.
        audio_channels: width of the features that the model takes; None takes any.
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
        audio_channels: int | None = None,
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
        self.audio_channels, self.latents = audio_channels, latents if "latents" in self.parts else None
        self.seed, self.fixed, self.smoothing = seed, fixed, smoothing
        self.picture = None if picture is None else to_network(picture)
        self.has_reference = bool(self.parts & {"reference", "latents"})
        self.clips = [clip for clip in clips if self._targets(clip) > 0]
        self._log_unused_frames(clips)
        self.ends = np.cumsum([min(self._targets(clip), frames_per_clip or clip.frames) for clip in self.clips])
        self._forget_files()

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
        if self.parts & {"image", "masked", "reference", "mask"}:
            self._add_images(window, number, files, shown)
        if files.latents is not None:
            latents = files.read_latents(frame, window["reference_frame"])
            window["z"], window["z_masked"], window["z_reference"] = map(torch.from_numpy, latents)
        if "landmarks" in self.parts:
            points = files.landmarks[shown : shown + 1][0, list(LANDMARKS_WITHOUT_MOUTH)]
            window["landmarks"] = torch.from_numpy(points)
        if files.features is not None:
            window["audio"] = torch.from_numpy(files.audio(clip.moment(frame), self.smoothing))
        if "other_audio" in self.parts:
            other = ReferenceRule(min_gap=FPS, lenient=True).draw(frame, clip.frames, random)
            window["other_audio"] = torch.from_numpy(files.audio(clip.moment(other), self.smoothing))
        return window

    def _reference(self, files: ClipFiles, frame: int, random: np.random.Generator) -> int:
        clip = files.clip
        if self.picture is not None:
            return -1
        if self.rule.source == "each":
            return self.rule.draw(frame, clip.pool, random)
        if files.scores is None:
            files.scores = self.rule.scores(clip.pool_landmarks, self.seed, clip.name)
        return self.rule.best(frame, files.scores)

    def _add_images(self, window: Window, number: int, files: ClipFiles, shown: int) -> None:
        image = self._image(number, shown)
        if "image" in self.parts:
            window["image"] = torch.from_numpy(image)
        if self.parts & {"mask", "masked"}:
            landmarks = np.array(files.landmarks[shown : shown + 1][0])
            mask = self.mask(landmarks, image.shape[-1])
            if "masked" in self.parts:
                window["masked"] = torch.from_numpy(hide(image, mask))
            if "mask" in self.parts:
                window["mask"] = torch.from_numpy(mask[None].astype(np.float32))
                window["all_landmarks"] = torch.from_numpy(landmarks)
        if "reference" in self.parts:
            picture = self._image(number, window["reference_frame"]) if self.picture is None else self.picture
            window["reference"] = torch.from_numpy(picture)

    def _open(self, number: int) -> ClipFiles:
        if self._process != os.getpid():  # decoders must not be shared with the process that forked this one
            self._forget_files()
        if number not in self._files:
            self._files[number] = ClipFiles(self.clips[number], self.features, self.audio_channels, self.latents)
        return self._files[number]

    def _image(self, number: int, frame: int) -> np.ndarray:
        """(3, H, W) float32 in [-1, 1]."""
        if number not in self._videos:
            self._videos[number] = self.clips[number].reader()
            if len(self._videos) > OPEN_VIDEOS:
                self._videos.popitem(last=False)[1].close()
        self._videos.move_to_end(number)
        return to_network(self._videos[number][frame])

    def _forget_files(self) -> None:
        self._files: dict[int, ClipFiles] = {}
        self._videos: OrderedDict[int, Any] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_videos": OrderedDict()}

    def _targets(self, clip: Clip) -> int:
        return self.rule.targets(clip.frames) if self.has_reference else clip.frames

    def _log_unused_frames(self, clips: Sequence[Clip]) -> None:
        short = [f"{clip.name} ({clip.frames} frames)" for clip in clips if self._targets(clip) == 0]
        if short:
            log.warning("not used, no two frames %d apart: %s", self.rule.min_gap, ", ".join(short))
        if not self.clips:
            raise UserError(f"no clip to read: {len(clips)} given, of which {len(short)} are too short for references")
        if unused := sum(clip.frames - self._targets(clip) for clip in self.clips):
            log.info("%d frames are no targets: no frame is %d away from them", unused, self.rule.min_gap)


class ClipBatches(Dataset):
    """Item i is a ready batch: read it with DataLoader(batch_size=None), in order.

    A clip whose files cannot be read costs itself alone: it appears in `failed` once, with its reason, and is left out
    of the later batches. With several worker processes each of them finds out for itself.

    Args:
        windows: the frames of the clips.
        clips: numbers of the clips to take.
        batch_size: frames.
        together: clips whose frames are interleaved, frame 0 of each, then frame 1 of each, for samplers that need the
            previous frame. A batch holds no others.
        length: number of items at least; those at the end have no frames.
    """

    def __init__(
        self, windows: WindowDataset, clips: Sequence[int], batch_size: int, together: int = 1, length: int = 1
    ) -> None:
        self.windows, self.batch_size = windows, batch_size
        self.groups = [clips[start : start + together] for start in range(0, len(clips), together)]
        frames = [sum(len(windows.indices(clip)) for clip in group) for group in self.groups]
        self.ends = np.cumsum([-(-count // batch_size) for count in frames], dtype=int)
        self.length = max(length, 1)
        self._group, self._failed = -1, set[int]()

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
        rows: list[tuple[int, Window]] = []
        failed: dict[str, str] = {}
        for clip, index in self._order[number * self.batch_size : (number + 1) * self.batch_size]:
            if clip in self._failed:
                continue
            try:
                rows.append((clip, self.windows[index]))
            except (UserError, OSError) as error:
                self._failed.add(clip)
                failed[self.windows.clips[clip].name] = reason_of(error)
        kept = [window for clip, window in rows if clip not in self._failed]
        return {"window": default_collate(kept) if kept else None, "failed": failed}

    def _start(self, group: int) -> None:
        """List the windows of a group of clips in their order, (clip, index)."""
        self._group, self._failed = group, set()
        indices = {clip: self.windows.indices(clip) for clip in self.groups[group]}
        longest = max(len(each) for each in indices.values())
        self._order = [
            (clip, each[frame]) for frame in range(longest) for clip, each in indices.items() if frame < len(each)
        ]
