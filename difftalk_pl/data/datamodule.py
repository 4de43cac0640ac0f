"""HDTFDataModule: which clips train, validate and test, and the loaders of their windows."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.compatibility import check_audio, refuse_other_data
from difftalk_pl.data.dataset import (
    EVALUATION,
    FRAME,
    GENERATION,
    MASKED_FRAME,
    TRAINING,
    TRAINING_ON_IMAGES,
    WindowDataset,
)
from difftalk_pl.data.features.kinds import KINDS, FeatureModel
from difftalk_pl.data.features.stored import read_record
from difftalk_pl.data.features.windows import AROUND, FPS
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.loaders import Loading, clip_loader, window_loader
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.quality import keep_clips
from difftalk_pl.data.references import ReferencePolicy, ReferenceRule, read_face
from difftalk_pl.data.sampler import WindowSampler
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync import SyncData, SyncWindows, open_sides
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


class HDTFDataModule(L.LightningDataModule):
    """WindowDataset of a prepared dataset: HDTF's, or any other.

    Args:
        root: a folder that prepare or synthesize wrote.
        contents: frames for the autoencoder, latents for diffusion, images for diffusion without a cache, or sync for
            a SyncNet.
        features: the kind of audio features: mfcc, deepspeech, wav2vec2 or hubert.
        mask: the hidden region; the model must be trained and used with one policy.
        min_reference_gap: frames between a target and its reference.
        smoothing: frames before and after the target whose audio windows the model sees; linked from the model.
        reference: frames that show the person while evaluating; linked from the model's sampler.
        audio_channels: width of the features that the model takes; linked from the model.
        codec: hash of the autoencoder whose cached latents are read; linked from the model.
        sequential: frames are generated from the one before, so that clips are interleaved; linked from the model.
        val_frames: only the first so many targets of every validation clip.
        test_frames: the same for test.
        val_clips: clips that are generated at a validation while fit runs; 0 for none.
        val_seconds: of each of them, from its beginning.
        sync: the inputs of a SyncNet, for contents sync.
        seed: of the order and of the references.
        split: which clips train, validate and test.
        keep: condition on the columns of quality.csv that a clip has to fulfil, such as yaw < 35 and sharpness > 20.
        loading: batch sizes and workers.
    """

    def __init__(
        self,
        root: Path,
        contents: Literal["frames", "latents", "images", "sync"] = "latents",
        features: str = "mfcc",
        mask: MaskName = "mouth_safe",
        min_reference_gap: int = 60,
        smoothing: tuple[int, int] = AROUND,
        reference: str = "each",
        audio_channels: int | None = None,
        codec: str | None = None,
        sequential: bool = False,
        val_frames: int | None = None,
        test_frames: int | None = None,
        val_clips: int = 2,
        val_seconds: float = 2.0,
        sync: SyncData = SyncData(),
        seed: int = 0,
        split: Split = Split(),
        keep: str | None = None,
        loading: Loading = Loading(),
    ) -> None:
        super().__init__()
        if features not in KINDS:
            raise UserError(f"features {features!r}: expected one of {', '.join(KINDS)}")
        if val_clips < 0 or val_seconds < 1 / FPS:
            raise UserError(f"data.val_clips {val_clips}, val_seconds {val_seconds:g}: expected 0 and a frame, or more")
        self.root, self.contents, self.features = Path(root), contents, features
        self.mask, self.rule = MaskPolicy(mask), ReferenceRule(min_reference_gap)
        self.smoothing, self.reference, self.audio_channels = smoothing, reference, audio_channels
        self.codec, self.sequential = codec, sequential
        self.frames_per_clip = {"train": None, "val": val_frames, "test": test_frames}
        self.val_clips, self.val_seconds = val_clips, val_seconds
        self.sync, self.seed, self.split, self.keep, self.loading = sync, seed, split, keep, loading
        self.sides: dict[str, list[Clip]] = {}
        self.windows: dict[str, WindowDataset | SyncWindows] = {}
        self.evaluated: WindowDataset | None = None
        self.trained_on: list[str] | None = None  # identities; known from a checkpoint alone
        self._trained_features: tuple[str, str] | None = None

    # The clips

    def setup(self, stage: str) -> None:
        """Divide the clips, open the Datasets and check that they fit the model; reads clips.csv, no frame."""
        clips = open_clips(self.root)
        sides = self.split.apply(clips)
        used = {clip.name for side in sides.values() for clip in side}
        if unused := [clip.name for clip in clips if clip.name not in used]:
            log.info("on no side: %s", ", ".join(unused))
        self.sides = {side: keep_clips(self.root, kept, self.keep) for side, kept in sides.items()}
        log.info("clips: %s", ", ".join(f"{side} {len(clips)}" for side, clips in self.sides.items()))
        if self.contents == "sync":
            self.windows = dict(open_sides(self.sides, stage, self.sync, self.seed))
            return
        if stage == "predict" and self.contents == "frames":
            raise UserError("predict needs a diffusion model (stage 2); test shows what an autoencoder reconstructs")
        sides_read = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        if self.contents != "frames":
            read = [clip for side in sides_read for clip in self.sides[side]]
            check_audio(self.root, read, self.features, self.audio_channels)
        if stage in ("fit", "validate"):
            self.windows = {side: self._training(side) for side in sides_read if side == "train" or self.sides[side]}
        self.evaluated = self._opened_for(stage)
        if stage in ("test", "predict"):
            self.windows = {"test": self.evaluated}

    def _opened_for(self, stage: str) -> WindowDataset | None:
        """The whole clips that a stage generates."""
        if stage in ("test", "predict"):
            return self.evaluation("test", control=stage == "test")
        if not self.sides["val"] or (stage == "fit" and not self.val_clips):
            return None
        if stage == "validate":
            return self.evaluation("val", control=True)
        return self.evaluation("val", self.val_clips, max(round(self.val_seconds * FPS), 1))

    def _training(self, side: str) -> WindowDataset:
        parts = {"frames": FRAME, "latents": TRAINING, "images": TRAINING_ON_IMAGES}[self.contents]
        return WindowDataset(
            self._clips(side),
            parts,
            latents=self._latents(self.sides[side]) if "latents" in parts else None,
            reference=self.rule,
            fixed=side != "train",
            frames_per_clip=self.frames_per_clip[side],
            **self._shared(),
        )

    def evaluation(
        self, side: str, clips: int | None = None, frames: int | None = None, control: bool = False
    ) -> WindowDataset:
        """Open whole clips, every frame in its order.

        A frame without a reference far enough away takes the furthest one.

        Args:
            clips: the first so many of the side.
            frames: of each, from its beginning; by default val_frames or test_frames.
            control: with the audio of other moments.
        """
        policy = ReferencePolicy.parse(self.reference)
        return WindowDataset(
            self._clips(side)[:clips],
            MASKED_FRAME if self.contents == "frames" else EVALUATION if control else GENERATION,
            reference=ReferenceRule(self.rule.min_gap, lenient=True, source=policy.frames),
            fixed=True,
            frames_per_clip=frames or self.frames_per_clip[side],
            picture=None if policy.file is None else read_face(policy.file, self.frame_size),
            **self._shared(),
        )

    def _shared(self) -> dict[str, Any]:
        return {
            "mask": self.mask,
            "features": self.features,
            "audio_channels": self.audio_channels,
            "seed": self.seed,
            "smoothing": self.smoothing,
        }

    def _clips(self, side: str) -> list[Clip]:
        if not self.sides[side]:
            raise UserError(f"{self.root}: no clip on the {side} side; change data.split")
        return self.sides[side]

    def _latents(self, clips: list[Clip]) -> LatentCache:
        if self.codec is None:
            raise UserError("data.contents latents: the model has no autoencoder whose latents could be read")
        cache = LatentCache(self.root, self.codec, self.mask.name)
        cache.check(clips)
        return cache

    @property
    def frame_size(self) -> int:
        """The side of the frames in pixels."""
        return read_dataset(self.root).size

    @property
    def feature_model(self) -> FeatureModel | None:
        """The network that made the features; None for kinds that were not learned, or if it is not recorded."""
        return read_record(self.root).get(self.features)

    @property
    def evaluation_clips(self) -> list[tuple[Clip, int]]:
        """Every clip, of all ranks, that the current stage generates, and how many frames of it."""
        windows = self.evaluated
        return [] if windows is None else [(clip, len(windows.indices(n))) for n, clip in enumerate(windows.clips)]

    # Loaders

    def train_dataloader(self) -> DataLoader:
        windows, size = self.windows["train"], self.loading.batch_size
        sampler = WindowSampler(len(windows), seed=self.seed, **self._ranks())
        loader = window_loader(windows, sampler, size, self.loading.workers, drop_last=len(sampler) > size)
        if self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
            if self.trainer.fit_loop.restarting:
                self._skip_used_batches(sampler, len(loader))
        return loader

    def _skip_used_batches(self, sampler: WindowSampler, batches: int) -> None:
        """Continue where the interrupted epoch stopped, or with the next epoch if none of it is left.

        `processed` and not `ready`: a batch that Ctrl-C or an error interrupted has not been used.
        """
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        used = loop.epoch_loop.batch_progress.current.processed
        if used < batches:
            sampler.skip = used * self.loading.batch_size
        else:
            sampler.set_epoch(loop.epoch_progress.current.started)

    def val_dataloader(self) -> list[DataLoader]:
        """Return the loader of the loss, and that of whole clips unless there are none to generate."""
        if "val" not in self.windows:
            return []
        windows, ranks = self.windows["val"], self._ranks()
        own = range(ranks["rank"], len(windows), ranks["world_size"])
        if len(windows) < ranks["world_size"]:
            raise UserError(
                f"val: {len(windows)} windows for {ranks['world_size']} processes: each needs one; raise "
                "data.val_frames, or use fewer devices"
            )
        loss = window_loader(windows, own, self.loading.eval_batch_size, self.loading.workers)
        return [loss] if self.evaluated is None else [loss, self._clip_loader(self.evaluated)]

    def test_dataloader(self) -> DataLoader:
        assert self.evaluated is not None
        return self._clip_loader(self.evaluated)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    def _clip_loader(self, windows: WindowDataset) -> DataLoader:
        together = self.loading.eval_batch_size if self.sequential else 1
        return clip_loader(windows, self.loading, together, **self._ranks())

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def own_clips(self, windows: WindowDataset) -> range:
        """Numbers of the clips that this process evaluates."""
        return range(self._ranks()["rank"], len(windows.clips), self._ranks()["world_size"])

    def evaluation_loader(self, windows: WindowDataset, indices: Sequence[int]) -> DataLoader:
        """Batches of these windows, in their order."""
        return window_loader(windows, indices, self.loading.eval_batch_size, 0)

    def identities(self, side: str) -> list[str]:
        """The people of a side."""
        return sorted({clip.identity for clip in self.windows[side].clips}) if side in self.windows else []

    # The checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Return what a model must find in its data again, and the people that it was trained on."""
        model = self.feature_model
        name, sha256 = (model.name, model.sha256) if model else self._trained_features or ("", "")
        return {
            "features": self.features,
            "mask": self.mask.name,
            "size": self.frame_size,
            "features_model": name,
            "features_sha256": sha256,
            "trained_on": sorted({clip.identity for clip in self.sides.get("train", ())}),
            "sync_crop": self.sync.crop,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the people of the training. Raises UserError for data that a checkpoint's model must not see."""
        self.trained_on = state_dict["trained_on"]
        refuse_other_data(state_dict, self.state_dict(), self.contents)
        self._trained_features = state_dict["features_model"], state_dict["features_sha256"]
