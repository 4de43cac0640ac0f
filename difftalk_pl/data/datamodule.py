"""HDTFDataModule: which clips train, validate and test, and the loaders of their windows."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from difftalk_pl.animate.following import face_in
from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.dataset import (
    EVALUATION,
    FRAME,
    GENERATION,
    MASKED_FRAME,
    TRAINING,
    TRAINING_ON_IMAGES,
    Part,
    Windows,
)
from difftalk_pl.data.features.kinds import KINDS, FeatureModel
from difftalk_pl.data.features.stored import check_features, read_record
from difftalk_pl.data.features.windows import AROUND
from difftalk_pl.data.latent_batches import to_network_precision
from difftalk_pl.data.latents import LatentCache, Latents
from difftalk_pl.data.loaders import Loading, make_loader, open_latents, training_order
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.quality import keep_clips
from difftalk_pl.data.references import ReferencePolicy, ReferenceRule
from difftalk_pl.data.sampler import ShardSampler, WindowSampler
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync_windows import SyncData, open_sides
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


class HDTFDataModule(L.LightningDataModule):
    """Windows of a prepared dataset: HDTF's, or anyone's.

    Args:
        root: a folder that prepare or synthesize wrote.
        contents: frames for the autoencoder, latents for diffusion, images for diffusion without a cache, or sync for
            a SyncNet.
        features: the kind of audio features: mfcc, deepspeech, wav2vec2 or hubert.
        mask: what is hidden; the model must be trained and used with one policy.
        min_reference_gap: frames between a target and its reference.
        val_frames: only the first so many targets of every validation clip.
        test_frames: the same for test.
        smoothing: frames before and after the target whose audio windows the model sees; released: 4 and 3.
        reference: which frames show the person; linked from model.sampler.reference.
        audio_channels: channels that the features must have; linked from the model.
        codec: hash of the autoencoder whose cached latents are read; linked from the model.
        sync: what a SyncNet sees and hears, for contents sync.
        seed: of the order and of the references.
        split: who trains, validates and tests.
        keep: condition on the columns of quality.csv that a clip has to fulfil, such as yaw < 35 and sharpness > 20.
        loading: batch sizes and workers, the order of training, and where latents are read from.
    """

    def __init__(
        self,
        root: Path,
        contents: Literal["frames", "latents", "images", "sync"] = "latents",
        features: str = "mfcc",
        mask: MaskName = "mouth_safe",
        min_reference_gap: int = 60,
        val_frames: int | None = None,
        test_frames: int | None = None,
        smoothing: tuple[int, int] = AROUND,
        reference: str = "each",
        audio_channels: int | None = None,
        codec: str | None = None,
        sync: SyncData = SyncData(),
        seed: int = 0,
        split: Split = Split(),
        keep: str | None = None,
        loading: Loading = Loading(),
    ) -> None:
        super().__init__()
        self.root, self.contents, self.features = Path(root), contents, features
        self.mask = MaskPolicy(mask)
        self.rule = ReferenceRule(min_reference_gap)
        self.frames_per_clip = {"train": None, "val": val_frames, "test": test_frames}
        self.smoothing, self.sync, self.seed = smoothing, sync, seed
        self.reference, self.expected_channels, self.codec = reference, audio_channels, codec
        self.split, self.keep = split, keep
        self.loading = loading
        if features not in KINDS:
            raise UserError(f"features {features!r}: expected one of {', '.join(KINDS)}")
        self.windows: dict[str, Any] = {}  # Windows, or SyncWindows
        self.sides: dict[str, list[Clip]] = {}

    @property
    def frame_size(self) -> int:
        """The side of the frames in pixels."""
        return read_dataset(self.root).size

    @property
    def audio_channels(self) -> int:
        """Numbers a step of the features, as the first readable file of a clip has them; of those that are open, if any
        are."""
        clips = next((windows.clips for windows in self.windows.values()), None) or open_clips(self.root)
        errors: list[UserError] = []
        for clip in clips:
            try:
                return clip.features(self.features).shape[1]
            except UserError as error:
                errors.append(error)
        raise errors[0]

    @property
    def feature_model(self) -> FeatureModel | None:
        """What made the features; None for kinds that nothing learned, or where nobody has recorded it."""
        return read_record(self.root).get(self.features)

    def setup(self, stage: str) -> None:
        """Divide the clips, open the Datasets and see that they have their features; reads clips.csv, no frame."""
        clips = open_clips(self.root)
        sides = self.split.apply(clips)
        used = {clip.name for side in sides.values() for clip in side}
        if unused := [clip.name for clip in clips if clip.name not in used]:
            log.info("on no side: %s", ", ".join(unused))
        self.sides = sides = {side: keep_clips(self.root, kept, self.keep) for side, kept in sides.items()}
        log.info("clips: %s", ", ".join(f"{side} {len(clips)}" for side, clips in sides.items()))
        if self.contents == "sync":
            self.windows = open_sides(sides, stage, self.sync, self.seed)
            return
        if stage == "fit":
            self._open("train", sides["train"], self._training_parts())
        if stage in ("fit", "validate") and sides["val"]:
            self._open("val", sides["val"], self._training_parts())
        if stage == "predict" and self.contents == "frames":
            raise UserError("predict needs a diffusion model (stage 2); test shows what an autoencoder reconstructs")
        if stage == "test":
            self.windows["test"] = self.evaluation("test", control=True)
        if stage == "predict":
            self.windows["test"] = self.evaluation("test")
        heard = [clip for windows in self.windows.values() if windows.features for clip in windows.clips]
        check_features(self.root, heard, self.features)

    def _training_parts(self) -> Sequence[Part]:
        return {"frames": FRAME, "latents": TRAINING, "images": TRAINING_ON_IMAGES}[self.contents]

    def _open(self, side: str, clips: list[Clip], parts: Sequence[Part]) -> None:
        self._refuse_empty(side)
        latents = self._latents(clips) if "latents" in parts else None
        self.windows[side] = Windows(
            clips,
            parts,
            mask=self.mask,
            features=self.features,
            latents=latents,
            reference=self.rule,
            seed=self.seed,
            fixed=side != "train",
            frames_per_clip=self.frames_per_clip[side],
            smoothing=self.smoothing,
        )

    def _refuse_empty(self, side: str) -> None:
        if not self.sides[side]:
            raise UserError(f"{self.root}: no clip on the {side} side; change data.split")

    def evaluation(
        self,
        side: str,
        clips: int | None = None,
        frames: int | None = None,
        control: bool = False,
    ) -> Windows:
        """Whole clips to generate and to measure: every frame in its order, so that motion and sound can be judged.

        References come as the model's sampler says; a frame without one far enough away takes the furthest one.

        Args:
            clips: the first so many of the side.
            frames: of each, from its beginning; by default val_frames or test_frames.
            control: with the sound of other moments.
        """
        self._refuse_empty(side)
        policy = self._policy()
        parts = MASKED_FRAME if self.contents == "frames" else EVALUATION if control else GENERATION
        return Windows(
            self.sides[side][:clips],
            parts,
            mask=self.mask,
            features=self.features,
            reference=ReferenceRule(self.rule.min_gap, lenient=True, source=policy.frames),
            seed=self.seed,
            fixed=True,
            frames_per_clip=frames or self.frames_per_clip[side],
            smoothing=self.smoothing,
            picture=None if policy.file is None else face_in(policy.file, self.frame_size),
        )

    def _policy(self) -> ReferencePolicy:
        return ReferencePolicy.parse(self.reference)

    def own_clips(self, windows: Windows) -> range:
        """Numbers of the clips that this process evaluates: none twice, and none at all where there are too few."""
        ranks = self._ranks()
        return range(ranks["rank"], len(windows.clips), ranks["world_size"])

    def evaluation_loader(self, windows: Windows, places: Sequence[int]) -> DataLoader:
        """Batches of these windows, in their order."""
        return DataLoader(windows, self.loading.eval_batch_size, sampler=places, num_workers=self.loading.workers)

    def _latents(self, clips: list[Clip]) -> Latents:
        if self.codec is None:
            raise UserError("data.contents latents: the model has no autoencoder to tell which latents are meant")
        return open_latents(LatentCache(self.root, self.codec, self.mask.name), clips, self.loading)

    def train_dataloader(self) -> DataLoader:
        windows = self.windows["train"]
        leads = getattr(self.trainer, "local_rank", 0) == 0
        sampler = training_order(windows, self.loading, self.seed, **self._ranks(), reads_ahead=leads)
        if self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        size, workers = self.loading.batch_size, self.loading.workers
        loader = make_loader(windows, sampler, size, workers, drop_last=len(sampler) > size)
        if self.trainer is not None and self.trainer.fit_loop.restarting:
            self._go_on(sampler, len(loader))
        return loader

    def _go_on(self, sampler: WindowSampler, batches: int) -> None:
        """Set the sampler to where the interrupted epoch stopped, or to the next epoch where none of it is left.

        `processed` and not `ready`: a batch that Ctrl-C or an error cut short has not been used.
        """
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        done = loop.epoch_loop.batch_progress.current.processed
        if done < batches:
            sampler.skip = done * self.loading.batch_size
        else:
            sampler.set_epoch(loop.epoch_progress.current.started)

    def val_dataloader(self) -> DataLoader | list:
        if "val" not in self.windows:
            return []
        return self._shard("val")

    def test_dataloader(self) -> DataLoader:
        """A turn for every process, in which Evaluation reads whole clips by itself, or none."""
        return DataLoader([0])  # type: ignore[arg-type]

    def identities(self, side: str) -> list[str]:
        """Who is on a side; empty where it is not open."""
        return sorted({clip.identity for clip in self.windows[side].clips}) if side in self.windows else []

    def predict_dataloader(self) -> DataLoader:
        """A turn for every process, in which PredictionVideos reads whole clips by itself."""
        return DataLoader([0])  # type: ignore[arg-type]

    def _shard(self, side: str) -> DataLoader:
        windows, ranks = self.windows[side], self._ranks()
        if len(windows) < ranks["world_size"]:
            raise UserError(
                f"{side}: {len(windows)} windows for {ranks['world_size']} processes: each needs one; raise "
                f"data.{side}_frames, or use fewer devices"
            )
        shard = ShardSampler(len(windows), **ranks)
        return make_loader(windows, shard, self.loading.eval_batch_size, self.loading.workers)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """On the device, latents become what the network takes."""
        return to_network_precision(batch)

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
