"""Talking puppets: a prepared dataset that needs no download and teaches the real thing.

Who hears the sound can draw the mouth; who does not cannot. Each clip has a face, a voice and a plan of syllables of
its own, all drawn from (seed, number) and nothing else.
"""

import colorsys
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import Clip, create_dataset, write_clip, write_index
from difftalk_pl.data.features.mfcc import MFCC
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.synthetic.drawing import draw, draw_background
from difftalk_pl.data.synthetic.puppet import Colour, Identity, Pose, landmarks
from difftalk_pl.data.synthetic.speech import Voice, articulate, draw_voice, make_plan, speak
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

VERSION = 1  # of what is drawn and spoken: clips of another version are not taken over on resuming
BLINK_SECONDS, BLINK_EVERY = 0.24, 3.2


class Performance(NamedTuple):
    """One clip before it is drawn."""

    who: Identity
    voice: Voice
    poses: list[Pose]
    audio: np.ndarray  # (T * 640,) int16

    def frames(self, size: int) -> Iterator[np.ndarray]:
        """(S, S, 3) uint8 each."""
        background = draw_background(self.who, size)
        return (draw(self.who, pose, background) for pose in self.poses)

    def landmarks(self) -> np.ndarray:
        """(T, 68, 2) float32, fractions of the frame's side."""
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
        seed: another seed, other people and other words.
        workers: processes that draw at the same time.
        first_identity: number of the first clip; 100 gives people that nobody met in clips 0 to 99.

    Raises:
        UserError: the folder holds something else than these clips.
    """
    if clips < 1 or seconds * FPS < 1 or workers < 1 or first_identity < 0 or seed < 0:
        raise UserError(
            f"synthesize: clips={clips}, seconds={seconds}, workers={workers}, seed={seed}, first_identity="
            f"{first_identity}: at least 1 clip, 1 frame (0.04 s) and 1 worker are needed, and nothing negative"
        )
    create_dataset(out, size)
    numbers = range(first_identity, first_identity + clips)
    recipe = {"version": VERSION, "seed": seed, "seconds": seconds, "size": size}
    todo = [number for number in numbers if not _is_there(out, number, recipe)]
    _make_all(out, todo, recipe, workers, clips)
    write_index(out)


def clip_name(number: int) -> str:
    """The clip's name, which is its identity's, too."""
    return f"synthetic_{number:03d}"


def perform(seed: int, number: int, seconds: float) -> Performance:
    """Face, voice, words and movements of a clip: a pure function of its arguments."""
    face, voice_, words, sound, motion = (
        np.random.default_rng([seed, number, part]) for part in range(5)
    )  # apart, so that a change to one leaves the others as they are
    frames = round(seconds * FPS)
    voice = draw_voice(voice_)
    tracks = articulate(make_plan(words, seconds), seconds)
    opening, width = tracks.mouth(frames, FPS)
    poses = _poses(motion, opening, width)
    return Performance(draw_identity(face), voice, poses, speak(voice, tracks, frames * RATE // FPS, sound))


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person: every trait varies continuously; skin and lips stay far lighter than the inside of the mouth."""
    tone, warmth = rng.random(), rng.uniform(-1, 1)
    skin = _hsv(0.065 + 0.012 * warmth, 0.34 + 0.18 * tone, 0.96 - 0.38 * tone)
    lips = _hsv(
        rng.uniform(-0.03, 0.025), rng.uniform(0.4, 0.54), max(0.62, 0.86 - 0.26 * tone + rng.uniform(-0.06, 0.06))
    )
    hair = _hsv(
        rng.uniform(0.04, 0.12), rng.uniform(0.15, 0.75), rng.choice([0.16, 0.3, 0.5, 0.75]) + rng.uniform(0, 0.15)
    )
    wall = rng.random()
    return Identity(
        skin=skin,
        hair=hair,
        eyes=_hsv(
            rng.choice([0.07, 0.3, 0.58]) + rng.uniform(-0.04, 0.04), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.7)
        ),
        lips=lips,
        cloth=_hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.5, 0.9)),
        background=(
            _hsv(wall, rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.95)),
            _hsv(wall + rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.6)),
        ),
        pattern=(float(rng.uniform(0, 0.09)), float(rng.uniform(1, 6)), float(rng.uniform(0, np.pi))),
        face_width=float(rng.uniform(0.235, 0.265)),
        chin=float(rng.uniform(1.42, 1.56)),
        taper=float(rng.uniform(0.06, 0.26)),
        crown=float(rng.uniform(1.2, 1.36)),
        eye_size=float(rng.uniform(0.88, 1.15)),
        eye_distance=float(rng.uniform(0.92, 1.06)),
        brow=float(rng.uniform(0.5, 1.3)),
        brow_tilt=float(rng.uniform(-0.05, 0.05)),
        nose=float(rng.uniform(0.94, 1.06)),
        nose_width=float(rng.uniform(0.8, 1.25)),
        mouth_width=float(rng.uniform(0.40, 0.48)),
        mouth_gap=float(rng.uniform(0.42, 0.52)),
        lip_upper=float(rng.uniform(0.06, 0.11)),
        lip_lower=float(rng.uniform(0.09, 0.15)),
        hairline=float(rng.uniform(-1.0, -0.72)),
        parting=float(rng.uniform(-0.22, 0.22)),
        hair_volume=float(rng.uniform(1.01, 1.14)),
        hair_length=float(max(0.0, rng.uniform(-1.0, 1.0))),
        beard=float(max(0.0, rng.uniform(-1.6, 0.85))),
        glasses=float(rng.random() < 0.25),
        ears=float(rng.uniform(0.9, 1.3)),
        light=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)),
    )


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue) % 1.0, float(saturation), min(1.0, float(value)))
    return 255 * red, 255 * green, 255 * blue


def _poses(rng: np.random.Generator, opening: np.ndarray, width: np.ndarray) -> list[Pose]:
    """Slow head motion, glances and blinks that know nothing of the speech, and the mouth that does."""
    times = np.arange(len(opening)) / FPS
    x, y = 0.5 + 0.018 * _drift(rng, times), 0.42 + 0.012 * _drift(rng, times)
    scale, angle = 1.2 + 0.03 * _drift(rng, times), 0.06 * _drift(rng, times)
    gaze = 0.035 * _drift(rng, times), 0.015 * _drift(rng, times)
    blinks = np.cumsum(0.8 + rng.exponential(BLINK_EVERY - 0.8, size=2 + int(times[-1])))
    lids = np.min(np.abs(times[:, None] - blinks), axis=1) / (0.5 * BLINK_SECONDS)
    face = np.stack([x, y, scale, angle, opening, width, np.clip(lids, 0, 1)], axis=1).tolist()
    looks = np.stack(gaze, axis=1).tolist()
    return [Pose(*values)._replace(gaze=(right, down)) for values, (right, down) in zip(face, looks, strict=True)]


def _drift(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Noise below 0.45 Hz, about -1 .. 1. (T,)."""
    rates, phases = rng.uniform(0.04, 0.45, 4), rng.uniform(0, 2 * np.pi, 4)
    return np.sin(2 * np.pi * times[:, None] * rates + phases).sum(axis=1) / 2.5


def _is_there(out: Path, number: int, recipe: dict[str, Any]) -> bool:
    clip = Clip(out, clip_name(number), round(recipe["seconds"] * FPS))
    if not (clip.folder / "clip.json").exists():
        return False
    made = clip.info().get("recipe")
    if made != recipe:
        raise UserError(f"{clip.folder}: made with {made}, asked for {recipe}; use another --out or remove it")
    return True


def _make(out: Path, recipe: dict[str, Any], number: int) -> None:
    clip = perform(recipe["seed"], number, recipe["seconds"])
    write_clip(
        out,
        clip_name(number),
        frames=clip.frames(recipe["size"]),
        audio=clip.audio,
        landmarks=clip.landmarks(),
        features=[MFCC()],
        info={
            "source": "synthetic",
            "recipe": recipe,
            "number": number,
            "person": asdict(clip.who),
            "voice": asdict(clip.voice),
        },
    )


def _make_all(out: Path, todo: list[int], recipe: dict[str, Any], workers: int, total: int) -> None:
    """Draw the missing clips under a progress bar; in fresh processes, since the caller may hold threads."""
    make = partial(_make, out, recipe)
    with progress_bar() as progress:
        bar = progress.add_task("synthesize", total=total, completed=total - len(todo))
        if workers == 1 or len(todo) <= 1:
            for number in todo:
                make(number)
                progress.advance(bar)
            return
        with ProcessPoolExecutor(min(workers, len(todo)), multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(make, number) for number in todo]
            try:
                for job in as_completed(jobs):
                    job.result()
                    progress.advance(bar)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
