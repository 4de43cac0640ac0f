"""The one Dataset: from prepared clips to the tensors of a frame, for training, validation and inference alike."""

import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import AROUND, FPS, smoothing_windows
from difftalk_pl.data.latents import Latents
from difftalk_pl.data.masks import MaskPolicy, hide
from difftalk_pl.data.pixels import to_network
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

LANDMARKS_WITHOUT_MOUTH = (*range(0, 4), *range(13, 48))  # as released: 39 points
OPEN_CLIPS = 48  # clips that one process keeps open; four files each

Part = Literal["image", "masked", "reference", "mask", "latents", "audio", "other_audio", "landmarks"]
FRAME: tuple[Part, ...] = ("image",)
MASKED_FRAME: tuple[Part, ...] = ("image", "mask")
CACHING: tuple[Part, ...] = ("image", "masked")
TRAINING: tuple[Part, ...] = ("latents", "audio", "landmarks")
TRAINING_ON_IMAGES: tuple[Part, ...] = ("image", "masked", "reference", "audio", "landmarks")
GENERATION: tuple[Part, ...] = (*TRAINING_ON_IMAGES, "mask")
EVALUATION: tuple[Part, ...] = (*GENERATION, "other_audio")


class Window(TypedDict, total=False):
    """What a network sees of one frame; which keys are there depends on the Dataset's `parts`."""

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
    reference_frame: int


class Draw(NamedTuple):
    """A window of an epoch: what the sampler hands to the Dataset, so that workers need not know the epoch."""

    number: int
    epoch: int


class _OpenClip:
    """One clip's files as one process has them open."""

    def __init__(self, clip: Clip, features: str | None, latents: Latents | None) -> None:
        self.clip = clip
        self.landmarks = clip.pool_landmarks
        self.features = None if features is None else clip.features(features)
        self.latents = None if latents is None else latents.reader(clip)
        self.scores: np.ndarray | None = None  # of its frames as references, where there is one for all
        self._reader: Any = None

    def image(self, frame: int) -> np.ndarray:
        """Of the pool: (3, H, W) float32 in [-1, 1]."""
        if self._reader is None:
            self._reader = self.clip.reader()
        return to_network(self._reader[frame])

    def close(self) -> None:
        if self.latents is not None:
            self.latents.close()
        if self._reader is not None:
            self._reader.close()


class Windows(Dataset):
    """Windows of prepared clips by number; start-up and memory do not depend on how many frames there are.

    Args:
        clips: the clips, in the order that numbers the windows.
        parts: what a window holds; see the constants of this module.
        mask: the policy that hides the mouth.
        features: the kind of audio features.
        latents: the cache that "latents" reads, or its copy in memory.
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
        latents: Latents | None = None,
        reference: ReferenceRule | None = None,
        seed: int = 0,
        fixed: bool = False,
        frames_per_clip: int | None = None,
        smoothing: tuple[int, int] = AROUND,
        picture: np.ndarray | None = None,
    ) -> None:
        self.parts = frozenset(parts)
        self.picture = None if picture is None else to_network(picture)
        self.mask, self.rule = mask or MaskPolicy(), reference or ReferenceRule()
        self.features = features if self.parts & {"audio", "other_audio"} else None
        self.latents = latents if "latents" in self.parts else None
        self.seed, self.fixed, self.smoothing = seed, fixed, smoothing
        if min(smoothing) < 0:
            raise UserError(f"data.smoothing {list(smoothing)}: frames before and after, 0 or more each")
        self.has_reference = bool(self.parts & {"reference", "latents"})
        self.clips = [clip for clip in clips if self._targets(clip) > 0]
        self._say_what_is_left_out(clips)
        counts = [min(self._targets(clip), frames_per_clip or clip.frames) for clip in self.clips]
        self.ends = np.cumsum(counts)
        self._open: OrderedDict[int, _OpenClip] = OrderedDict()
        self._process = os.getpid()

    def places(self, number: int) -> range:
        """The windows of the clip with this number, in the order of its frames."""
        return range(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, draw: int | Draw) -> Window:
        return self.window(*self.place(draw))

    def place(self, draw: int | Draw) -> tuple[int, int, int]:
        """The numbers of a window's clip, frame and epoch."""
        index, epoch = draw if isinstance(draw, Draw) else (draw, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = int(np.searchsorted(self.ends, index, side="right"))
        offset = index - self.places(number).start
        frame = self.rule.target(self.clips[number].frames, offset) if self.has_reference else offset
        return number, frame, 0 if self.fixed else epoch

    def window(self, number: int, frame: int, epoch: int = 0) -> Window:
        """The window of a frame of the clip with this number."""
        files = self._files(number)
        clip = files.clip
        random = self.random(clip, frame, epoch)
        window: Window = {"clip": clip.name, "frame": frame}
        if self.has_reference:
            window["reference_frame"] = self._reference(files, clip.source_frame(frame), random)
        self._add_images(window, files)
        self._add_latents(window, files)
        self._add_conditions(window, files, random)
        return window

    def random(self, clip: Clip, frame: int, epoch: int) -> np.random.Generator:
        """What a window draws from."""
        return np.random.default_rng([self.seed, epoch, zlib.crc32(clip.name.encode()), frame])

    def _reference(self, files: _OpenClip, frame: int, random: np.random.Generator) -> int:
        """The number of a frame of the pool; -1 for the picture."""
        clip = files.clip
        if self.picture is not None:
            return -1
        if self.rule.source == "each":
            return self.rule.draw(frame, clip.pool, random)
        if files.scores is None:
            files.scores = self.rule.scores(clip.pool_landmarks, self.seed, clip.name)
        return self.rule.best(frame, files.scores)

    def _add_images(self, window: Window, files: _OpenClip) -> None:
        if not self.parts & {"image", "masked", "reference", "mask"}:
            return
        shown = files.clip.source_frame(window["frame"])
        image = files.image(shown)
        if "image" in self.parts:
            window["image"] = torch.from_numpy(image)
        if self.parts & {"mask", "masked"}:
            landmarks = files.landmarks[shown]
            mask = self.mask(landmarks, image.shape[-1])
            if "masked" in self.parts:
                window["masked"] = torch.from_numpy(hide(image, mask))
            if "mask" in self.parts:
                window["mask"] = torch.from_numpy(mask[None].astype(np.float32))
                window["all_landmarks"] = torch.from_numpy(np.array(landmarks))
        if "reference" in self.parts:
            picture = files.image(window["reference_frame"]) if self.picture is None else self.picture
            window["reference"] = torch.from_numpy(picture)

    def _add_latents(self, window: Window, files: _OpenClip) -> None:
        if files.latents is None:
            return
        frame, reference = window["frame"], window["reference_frame"]
        window["z"] = torch.from_numpy(files.latents.read_latent(0, frame))
        window["z_masked"] = torch.from_numpy(files.latents.read_latent(1, frame))
        window["z_reference"] = torch.from_numpy(files.latents.read_latent(0, reference))

    def _add_conditions(self, window: Window, files: _OpenClip, random: np.random.Generator) -> None:
        if "landmarks" in self.parts:
            points = files.landmarks[files.clip.source_frame(window["frame"])][list(LANDMARKS_WITHOUT_MOUTH)]
            window["landmarks"] = torch.from_numpy(np.array(points))
        if files.features is None:
            return
        frame, moment = window["frame"], files.clip.moment
        around = self.smoothing
        window["audio"] = torch.from_numpy(smoothing_windows(files.features, np.array(moment(frame)), around))
        if "other_audio" in self.parts:
            other = ReferenceRule(min_gap=FPS, lenient=True).draw(frame, files.clip.frames, random)
            window["other_audio"] = torch.from_numpy(smoothing_windows(files.features, np.array(moment(other)), around))

    def _files(self, number: int) -> _OpenClip:
        if self._process != os.getpid():  # decoders must not be shared with the process that forked this one
            self._open, self._process = OrderedDict(), os.getpid()
        if number not in self._open:
            self._open[number] = _OpenClip(self.clips[number], self.features, self.latents)
            if len(self._open) > OPEN_CLIPS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _targets(self, clip: Clip) -> int:
        return self.rule.targets(clip.frames) if self.has_reference else clip.frames

    def _say_what_is_left_out(self, clips: Sequence[Clip]) -> None:
        short = [f"{clip.name} ({clip.frames} frames)" for clip in clips if self._targets(clip) == 0]
        if short:
            log.warning("refused, no two frames %d apart: %s", self.rule.min_gap, ", ".join(short))
        if not self.clips:
            raise UserError(f"no clip to read: {len(clips)} given, of which {len(short)} are too short for references")
        left_out = sum(clip.frames - self._targets(clip) for clip in self.clips)
        if left_out:
            log.info("%d frames are no targets: no frame is %d away from them", left_out, self.rule.min_gap)
