"""The command `animate`: any video of a person and any speech -> a talking video."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from difftalk_pl.data.audio import FPS, RATE, FeatureKind
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, create_dataset
from difftalk_pl.data.driven import DrivenClip
from difftalk_pl.data.features import LEARNED, OPTIONS, SHOWN, SpeechModels, open_features
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.data.source import Job, Settings, prepare_silent
from difftalk_pl.data.video import fit_audio, read_audio, write_video
from difftalk_pl.data.windows import GENERATION, ReferenceRule, Windows
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar
from difftalk_pl.stages.contract import DataContract
from difftalk_pl.stages.generation import Generator, SamplerConfig
from difftalk_pl.stages.latents import LatentCodec, choose_device
from difftalk_pl.stages.weights import read_weights

log = logging.getLogger(__name__)
SOUND_RATE = 44100  # of the result; features are made from 16 kHz


def animate(
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    sampler: SamplerConfig = SamplerConfig(),
    batch_size: int = 16,
    workers: int = 1,
    min_face: float = 32,
    device: str = "auto",
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
) -> None:
    """Make the person of a video say what a sound file says. The result is the face's crop, as long as the sound.

    The video runs back and forth where it is shorter than the sound; its own sound is not used.

    Args:
        checkpoint: a trained diffusion model: a .ckpt of a run, or a folder made by export.
        video: a person; one face, or the largest one.
        audio: anything with an audio track.
        out: the mp4 to write: H.264, AAC, 25 frames a second.
        sampler: how frames are drawn; fewer steps are faster.
        batch_size: frames drawn at once.
        workers: processes that read frames.
        min_face: smallest face to accept, pixels from ear to ear.
        device: cpu, cuda, or auto.
        deepspeech: the frozen graph of DeepSpeech 0.1.0, for a model that was trained with deepspeech features.
        speech_model: folder or hub name of the network, for a model that was trained with wav2vec2 or hubert.
        speech_layer: which of its layers' output was taken; the last by default.
    """
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out takes the name of an mp4 file")
    out.parent.mkdir(parents=True, exist_ok=True)
    where = choose_device(device)
    weights = read_weights(checkpoint)
    difftalk, codec, contract = weights.difftalk(), LatentCodec(weights.codec or weights), weights.data
    models = SpeechModels(deepspeech, speech_model, speech_layer, device=where.type)
    speech_features = _features(checkpoint, contract, models, difftalk.config.conditioning.audio_channels)
    generator = Generator(difftalk.to(where), codec.to(where), weights.schedule, sampler)
    sound = read_audio(audio, RATE)
    frames = round(len(sound) / SAMPLES_PER_FRAME)
    if frames == 0:
        raise UserError(f"{audio}: {len(sound) / RATE:.3f} s of sound, shorter than a frame; nothing to animate")
    speech = speech_features(fit_audio(sound, frames * SAMPLES_PER_FRAME))
    with tempfile.TemporaryDirectory(prefix="difftalk_pl_") as folder:
        clip = _face_clip(video, Path(folder), Settings(size=contract.size, min_face=min_face, min_seconds=0))
        windows = Windows(
            [DrivenClip.drive(clip, speech)],
            GENERATION,
            mask=MaskPolicy(contract.mask),  # type: ignore[arg-type]
            features=contract.features,
            reference=ReferenceRule(lenient=True),
            seed=sampler.seed,
            fixed=True,
            smoothing=difftalk.config.conditioning.smoothing,
        )
        loader = DataLoader(windows, batch_size, num_workers=workers)
        drawn = _draw(loader, generator, where, frames)
        written = write_video(out, drawn, fps=FPS, audio=read_audio(audio, SOUND_RATE), rate=SOUND_RATE)
    log.info("%s: %d frames, %.2f s", out, written, written / FPS)


def _features(checkpoint: Path, contract: DataContract, models: SpeechModels, channels: int) -> FeatureKind:
    """The kind that a model was trained with, made by the same network as then."""
    kind = contract.features
    made_with = f"{kind} features" + (f" of {contract.features_model}" if contract.features_model else "")
    if contract.features_sha256:
        made_with += f" (sha256 {contract.features_sha256[:SHOWN]}…)"
    if kind in LEARNED and getattr(models, OPTIONS[kind]) is None:
        option = OPTIONS[kind].replace("_", "-")
        raise UserError(f"{checkpoint}: was trained with {made_with}; give what made them by --{option}")
    features = open_features(kind, models)
    if (model := getattr(features, "model", None)) is None:
        if features.channels != channels:
            raise UserError(
                f"{checkpoint}: takes features of {channels} channels and says that they are {kind}, which has "
                f"{features.channels}: import it again with the --features that it was trained with"
            )
        return features
    if not contract.knows(model.sha256) or features.channels != channels:
        raise UserError(
            f"{checkpoint}: was trained with {made_with} in {channels} channels; given is {model} "
            f"with {features.channels}: give the one of the training"
        )
    if not contract.features_sha256:
        log.warning("%s: does not say which model made its %s features; %s is taken on trust", checkpoint, kind, model)
    return features


def _face_clip(video: Path, folder: Path, settings: Settings):
    """The video as a prepared clip, in a temporary dataset."""
    create_dataset(folder, settings.size)
    with progress_bar() as bar:
        task = bar.add_task("face", total=None)
        job = Job(video, folder, "input", settings, ())
        return prepare_silent(job, lambda done, total: bar.update(task, completed=done, total=total))


def _draw(loader: DataLoader, generator: Generator, device: torch.device, frames: int) -> Iterator[np.ndarray]:
    """(S, S, 3) uint8, one after the other; memory holds one batch."""
    with progress_bar() as bar:
        task = bar.add_task("frames", total=frames)
        for batch in loader:
            moved = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
            pixels = to_pixels(generator(moved))  # type: ignore[arg-type]
            yield from pixels
            bar.advance(task, len(pixels))
