"""A trained model as something to call: a video and a sound in, a talking video out."""

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from difftalk_pl.animate.cut import cut_clip
from difftalk_pl.animate.following import Followed, face_in, follow
from difftalk_pl.animate.paste import Paste
from difftalk_pl.animate.speech import speech_of_training
from difftalk_pl.animate.talking_video import TalkingVideo
from difftalk_pl.animate.timing import StageClock
from difftalk_pl.data.clips import SAMPLES_PER_FRAME
from difftalk_pl.data.dataset import GENERATION, WindowDataset
from difftalk_pl.data.driven import DrivenClip, back_and_forth
from difftalk_pl.data.features.kinds import FeatureKind, SpeechModels
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError
from difftalk_pl.faces.track import check_choice, follow_face
from difftalk_pl.generation.drawing import draw
from difftalk_pl.generation.presets import Preset, choose_sampler
from difftalk_pl.generation.sampler import Generator, SamplerConfig
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.video import SourceVideo, probe, source_rate
from difftalk_pl.progress import progress_bar
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.weights import Weights, plain

log = logging.getLogger(__name__)
SLOWEST, FASTEST = 1, 240  # frames a second
QUIET = 100  # of 32768: a sound that never gets louder says nothing


@dataclass
class FaceSettings:
    """Whose face is drawn, and how it goes back into the frame.

    Args:
        choice: largest, left, right, or a number counted from the left, 1 first.
        smallest: pixels from ear to ear; smaller faces stay as they are.
        max_gap: seconds without a face that are bridged.
        paste: the blend.

    Raises:
        UserError: a value that it cannot have.
    """

    choice: str = "largest"
    smallest: float = 32
    max_gap: float = 0.5
    paste: Paste = field(default_factory=Paste)

    def __post_init__(self) -> None:
        check_choice(self.choice)
        if not (0 <= self.smallest < np.inf and 0 <= self.max_gap < np.inf):
            raise UserError(f"min_face {self.smallest:g}, max_gap {self.max_gap:g}: expected 0 or more each")


class TalkingHeadPipeline:
    """Makes the person of a video say what a sound file says.

    >>> pipeline = TalkingHeadPipeline.from_pretrained("models/talk")
    >>> pipeline("person.mp4", "speech.wav").save("talking.mp4")

    Args:
        weights: of a diffusion model.
        device: cpu, cuda, or auto.
        models: what learned kinds of speech features need.
    """

    def __init__(self, weights: Weights, device: str = "auto", models: SpeechModels = SpeechModels()) -> None:
        self.weights, self.device = weights, choose_device(device)
        self.difftalk = weights.difftalk().to(self.device)
        self.contract = weights.data
        self.codec = LatentCodec(weights.codec or weights).to(self.device)
        channels = self.difftalk.config.conditioning.audio_channels
        self.features: FeatureKind = speech_of_training(weights.path, self.contract, models, channels)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        revision: str | None = None,
        device: str = "auto",
        deepspeech: Path | None = None,
        speech_model: str | None = None,
        speech_layer: int | None = None,
    ) -> "TalkingHeadPipeline":
        """From a folder made by export, a checkpoint, or a repository of the Hugging Face hub.

        Args:
            deepspeech: the frozen graph of DeepSpeech 0.1.0, for a model that was trained with deepspeech features.
            speech_model: folder or hub name of the network, for one that was trained with wav2vec2 or hubert.
            speech_layer: which of its layers' output was taken; the last by default.
        """
        where = choose_device(device)
        models = SpeechModels(deepspeech, speech_model, speech_layer, device=where.type)
        return cls(Weights.from_pretrained(name, revision), device, models)

    def __call__(
        self,
        video: str | Path,
        audio: str | Path,
        sampler: SamplerConfig | Preset = "fast",
        fps: float | Literal["source"] = FPS,
        face: FaceSettings = FaceSettings(),
        batch_size: int = 16,
        workers: int = 0,
        first: float | None = None,
    ) -> TalkingVideo:
        """Follow the face, and return what draws the video when it is saved or its frames are asked for.

        The result is as long as the sound, at the video's own resolution; a shorter video runs back and forth.

        Args:
            video: a person; its own sound, if any, is not used.
            audio: anything with an audio track.
            sampler: how frames are drawn: a preset by name, or a configuration of one's own.
            fps: frames a second of the result; `source` keeps those of the video.
            face: whose, and how it goes back.
            batch_size: frames drawn at once.
            workers: processes that read frames.
            first: make only the first so many seconds.

        Raises:
            UserError: a file that cannot be used, no face, or no sound.
        """
        sampler = choose_sampler(sampler) if isinstance(sampler, str) else sampler
        _refuse_odd(fps, batch_size, workers, sampler.seed)
        generator, clock = self.generator(sampler)
        rate = source_rate(video) if fps == "source" else float(fps)
        speech, seconds = self._speech(Path(audio), clock)
        count = round(seconds * rate)
        if count == 0:
            raise UserError(f"{audio}: {seconds:.3f} s of sound, shorter than a frame; nothing to animate")
        count = count if first is None else min(count, max(round(first * rate), 1))
        source = SourceVideo(video, rate)
        folder = tempfile.TemporaryDirectory(prefix="difftalk_pl_")
        followed = self._follow(source, count, face, clock)
        with clock("cut"):
            frames = clock.each("read", source.frames(len(followed.usable)))
            clip = cut_clip(frames, followed, self.contract.size, Path(folder.name), Path(video).stem)
        order = back_and_forth(np.arange(count), len(followed.usable))
        driven = DrivenClip.drive(clip, speech, clip.places[order], rate)
        windows = self._windows(driven, sampler, face)
        return TalkingVideo(
            source=source,
            audio=Path(audio),
            order=order,
            fps=rate,
            boxes=followed.boxes,
            points=followed.landmarks,
            shown=driven.shown >= 0,
            shots=followed.shots[order],
            passed=followed.reasons,
            squares=lambda shots: draw(generator, windows, shots, self.device, batch_size, workers),
            paste=face.paste,
            model=self.weights.hash,
            settings=_told(sampler, rate, face),
            clock=clock,
            folder=folder,
        )

    def generator(self, sampler: SamplerConfig) -> tuple[Generator, StageClock]:
        """What draws, and what times it."""
        clock = StageClock(torch.cuda.synchronize) if self.device.type == "cuda" else StageClock()
        dropout = self.weights.config.get("audio_dropout", 0.0)
        return Generator(self.difftalk, self.codec, self.weights.schedule, sampler, dropout, clock), clock

    def _speech(self, audio: Path, clock: StageClock) -> tuple[np.ndarray, float]:
        """Feature steps (2T, C), and how long the sound is."""
        with clock("features"):
            sound = read_audio(audio, RATE)
            if len(sound) and np.abs(sound).max() < QUIET:
                log.warning("%s: silent; the mouth is drawn as in a pause", audio)
            frames = max(round(len(sound) / SAMPLES_PER_FRAME), 1)
            return self.features(fit_audio(sound, frames * SAMPLES_PER_FRAME)), len(sound) / RATE

    def _follow(self, source: SourceVideo, count: int, face: FaceSettings, clock: StageClock) -> Followed:
        """Where the face is in as many frames of the video as are needed."""
        info = probe(source.path)
        expected = min(count, max(round(info.duration * source.fps), 1))
        with progress_bar(transient=True) as bar, clock("faces"):
            task = bar.add_task("face", total=expected)
            frames = clock.each("read", source.frames(count))
            track = follow_face(frames, face.choice, done=lambda number: bar.update(task, completed=number))
            try:
                return follow(
                    track.landmarks,
                    info.width,
                    info.height,
                    fps=source.fps,
                    min_face=face.smallest,
                    max_gap=face.max_gap,
                )
            except UserError as error:
                raise UserError(f"{source.path}: {error}") from error

    def _windows(self, driven: DrivenClip, sampler: SamplerConfig, face: FaceSettings) -> WindowDataset:
        policy = sampler.policy
        gap = ReferenceRule().min_gap if policy.frames == "each" else 0  # the sound is another: nothing to give away
        return WindowDataset(
            [driven],
            GENERATION,
            mask=MaskPolicy(self.contract.mask),  # type: ignore[arg-type]
            features=self.contract.features,
            reference=ReferenceRule(gap, lenient=True, source=policy.frames),
            seed=sampler.seed,
            fixed=True,
            smoothing=self.difftalk.config.conditioning.smoothing,
            picture=None if policy.file is None else face_in(policy.file, self.contract.size),
        )


def _refuse_odd(fps: float | str, batch_size: int, workers: int, seed: int) -> None:
    """Raises UserError before any work."""
    if fps != "source" and not (isinstance(fps, int | float) and SLOWEST <= fps <= FASTEST):
        raise UserError(f"fps {fps}: expected {SLOWEST} to {FASTEST} frames a second, or source")
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size {batch_size}, workers {workers}: expected 1 or more, 0 or more")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed}: expected 0 to 2^63 - 1")


def _told(sampler: SamplerConfig, fps: float, face: FaceSettings) -> dict[str, Any]:
    """What the metadata say of it: of a reference's file the name alone, since folders are nobody's business."""
    policy = sampler.policy
    told = plain(sampler)
    if policy.file is not None:
        told["reference"] = sampler.reference.removesuffix(policy.source) + policy.file.name
    return {"sampler": told, "fps": fps, "face": plain(face)}
