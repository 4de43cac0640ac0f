"""The command `animate`: any video of a person and any speech -> a talking video."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from difftalk_pl.callbacks.sheets import to_pixels
from difftalk_pl.data.audio import FEATURES, FPS, RATE
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, create_dataset
from difftalk_pl.data.driven import DrivenClip
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.source import Job, Settings, prepare_silent
from difftalk_pl.data.video import fit_audio, read_audio, write_video
from difftalk_pl.data.windows import GENERATION, ReferenceRule, Windows
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar
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
    """
    if out.is_dir():
        raise UserError(f"{out}: is a folder; --out takes the name of an mp4 file")
    out.parent.mkdir(parents=True, exist_ok=True)
    where = choose_device(device)
    weights = read_weights(checkpoint)
    difftalk, codec, contract = weights.difftalk(), LatentCodec(weights.codec or weights), weights.data
    generator = Generator(difftalk.to(where), codec.to(where), weights.schedule, sampler)
    sound = read_audio(audio, RATE)
    frames = round(len(sound) / SAMPLES_PER_FRAME)
    if frames == 0:
        raise UserError(f"{audio}: {len(sound) / RATE:.3f} s of sound, shorter than a frame; nothing to animate")
    speech = FEATURES[contract.features]()(fit_audio(sound, frames * SAMPLES_PER_FRAME))
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
        )
        loader = DataLoader(windows, batch_size, num_workers=workers)
        drawn = _draw(loader, generator, where, frames)
        written = write_video(out, drawn, fps=FPS, audio=read_audio(audio, SOUND_RATE), rate=SOUND_RATE)
    log.info("%s: %d frames, %.2f s", out, written, written / FPS)


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
