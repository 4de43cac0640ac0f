"""The command `synthesize`: a prepared dataset of drawn, talking faces that needs no download.

The sound tells how the mouth is drawn, and nothing else does. Each clip has a face, a voice and a plan of syllables of
its own, all drawn from (seed, number).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import Clip, create_dataset, write_clip, write_index
from difftalk_pl.data.features.kinds import MFCC
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.parallel import run_jobs
from difftalk_pl.data.synthetic.drawing import draw, draw_background
from difftalk_pl.data.synthetic.geometry import Identity, Pose, draw_identity, landmarks
from difftalk_pl.data.synthetic.speech import CONTROL, articulate, draw_voice, make_plan, speak
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

VERSION = 1  # of what is drawn and spoken: clips of another version are not continued
BLINK_SECONDS, BLINK_EVERY = 0.24, 3.2


class Performance(NamedTuple):
    """One clip before it is drawn."""

    who: Identity
    voice: SimpleNamespace
    poses: list[Pose]
    audio: np.ndarray  # (T * 640,) int16

    def frames(self, size: int) -> Iterator[np.ndarray]:
        """Draw the frames, (S, S, 3) uint8 each."""
        background = draw_background(self.who, size)
        return (draw(self.who, pose, background) for pose in self.poses)

    def landmarks(self) -> np.ndarray:
        """Return the landmarks, (T, 68, 2) float32, fractions of the frame's side."""
        return np.stack([landmarks(self.who, pose) for pose in self.poses])


def synthesize(
    out: Path,
    clips: int = 24,
    seconds: float = 12.0,
    size: Literal[64, 128, 256, 512] = 64,
    seed: int = 0,
    workers: int = 2,
    first_identity: int = 0,
) -> None:
    """Draw talking faces with formant speech and write them as a prepared dataset; no download, landmarks exact.

    Every clip is another person and depends on seed and number alone. Clips that are already there are kept.

    Args:
        out: folder of the dataset, made or continued.
        clips: how many clips, one identity each.
        seconds: length of each clip.
        size: side of the frames in pixels.
        seed: another seed gives other people and other words.
        workers: processes that draw at the same time.
        first_identity: number of the first clip; 100 gives people that clips 0 to 99 do not show.

    Raises:
        UserError: the folder holds other clips than these.
    """
    create_dataset(out, size)
    recipe = {"version": VERSION, "seed": seed, "seconds": seconds, "size": size}
    numbers = range(first_identity, first_identity + clips)
    with progress_bar() as bar:
        jobs = run_jobs(partial(_make, out, recipe), numbers, workers)
        for _, error in bar.track(jobs, total=clips, description="synthesize"):
            if isinstance(error, Exception):
                raise error
    write_index(out)


def perform(seed: int, number: int, seconds: float) -> Performance:
    """Make face, voice, words and movements of a clip, a pure function of the arguments.

    Head motion, glances and blinks are slow and independent of the speech.
    """
    face, speaker, words, sound, motion = (np.random.default_rng([seed, number, part]) for part in range(5))
    times, voice = np.arange(round(seconds * FPS)) / FPS, draw_voice(speaker)
    tracks = articulate(make_plan(words, seconds), seconds)
    opening, width = (tracks[name][:: CONTROL // FPS][: len(times)] for name in ("opening", "width"))
    low, high = np.array([[0.04], [0]]), np.array([[0.45], [2 * np.pi]])
    rates, phases = motion.uniform(low, high, (6, 2, 4)).swapaxes(0, 1)
    drift = np.sin(2 * np.pi * times[:, None, None] * rates + phases).sum(axis=2) / 2.5  # (T, 6), about -1 .. 1
    head = (0.5, 0.42, 1.2, 0) + drift[:, :4] * (0.018, 0.012, 0.03, 0.06)  # x, y, scale, angle
    blinks = np.cumsum(0.8 + motion.exponential(BLINK_EVERY - 0.8, size=2 + int(times[-1])))
    lids = np.clip(np.min(np.abs(times[:, None] - blinks), axis=1) / (0.5 * BLINK_SECONDS), 0, 1)
    poses = np.column_stack([head, opening, width, lids, drift[:, 4:] * (0.035, 0.015)]).tolist()
    audio = speak(voice, tracks, len(times) * RATE // FPS, sound)
    return Performance(draw_identity(face), voice, [Pose(*pose) for pose in poses], audio)


def _make(out: Path, recipe: dict[str, Any], number: int) -> None:
    name = f"synthetic_{number:03d}"
    if (out / "clips" / name).exists():
        if (made := Clip(out, name, 0).info().get("recipe")) != recipe:
            raise UserError(f"{out}: {name} was made with {made}, not with {recipe}; use another --out or remove it")
        return
    clip = perform(recipe["seed"], number, recipe["seconds"])
    write_clip(
        out,
        name,
        frames=clip.frames(recipe["size"]),
        audio=clip.audio,
        landmarks=clip.landmarks(),
        features=[MFCC],
        info={"source": "synthetic", "recipe": recipe},
    )
