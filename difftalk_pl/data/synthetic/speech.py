"""Formant speech whose mouth is known: the sound half of the synthetic clips.

A plan of syllables drives sound and lips alike. F1 rises from its closed value only as far as the mouth is open, so the
opening can be heard, exactly as in a vocal tract; F2 tells how wide the lips are. Nothing else about the mouth is
random, and neither signal lags behind the other. Resonators in cascade after D. H. Klatt, "Software for a
cascade/parallel formant synthesizer", JASA 67 (1980).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

RATE = 16000
CONTROL = 200  # articulation steps a second
BLOCK = RATE // CONTROL  # samples for which the resonators hold still: 5 ms
CLOSED_F1 = 220.0  # Hz, where the first formant sits while the lips touch
OPEN_F1 = 800.0  # Hz, a mouth as wide as it goes
NEUTRAL_F2, F2_REACH = 1450.0, 850.0  # Hz; lips at rest, and the distance that spreads or rounds them fully
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 220.0, 300.0])  # Hz, F1 .. F5
UPPER_FORMANTS = (3500.0, 4500.0)  # Hz, F4 and F5 do not move
MURMUR = (250.0, 1100.0, 2250.0)  # Hz, the nasal tract behind closed lips

# Mean formants of men, Hz: G. E. Peterson and H. L. Barney, JASA 24 (1952); "e" and "@" by interpolation.
# The open ones come more often than they should: a demo wants to see the mouth move.
VOWELS = {
    "i": (280.0, 2250.0, 2950.0),
    "e": (430.0, 2050.0, 2600.0),
    "E": (540.0, 1840.0, 2480.0),
    "ae": (670.0, 1720.0, 2410.0),
    "a": (740.0, 1120.0, 2440.0),
    "O": (580.0, 850.0, 2410.0),
    "o": (470.0, 900.0, 2350.0),
    "u": (310.0, 870.0, 2240.0),
    "@": (500.0, 1450.0, 2450.0),
}
FREQUENCY = (0.08, 0.12, 0.13, 0.15, 0.17, 0.12, 0.10, 0.06, 0.07)  # of the vowels above
CONSONANTS = {"b": 0.05, "m": 0.3, "p": 0.0}  # closed lips, with the loudness of their voicing


@dataclass(frozen=True)
class Voice:
    """What stays the same in one speaker's sound. Pitch in Hz, floor in int16 steps, the rest are factors."""

    pitch: float
    formant_scale: float
    open_quotient: float
    jitter: float
    vibrato: float
    vibrato_rate: float
    level: float
    floor: float


class Segment(NamedTuple):
    """One piece of the plan: a vowel's name, "b", "m", "p" or "pause"; seconds; effort 1 is ordinary."""

    sound: str
    seconds: float
    effort: float = 1.0


class Articulation(NamedTuple):
    """Control tracks at 200 Hz, (N,) each and formants (N, 3) in Hz before the speaker's scale.

    opening: 0 closed .. 1 wide; width: -1 rounded .. 0 neutral .. 1 spread; declination falls 1 .. 0 over a phrase.
    """

    formants: np.ndarray
    voicing: np.ndarray
    nasal: np.ndarray
    burst: np.ndarray
    declination: np.ndarray
    opening: np.ndarray
    width: np.ndarray

    def mouth(self, frames: int, fps: int = 25) -> tuple[np.ndarray, np.ndarray]:
        """Opening and width at exactly k / fps seconds, (frames,) each."""
        times, clock = np.arange(frames) / fps, np.arange(len(self.opening)) / CONTROL
        return np.interp(times, clock, self.opening), np.interp(times, clock, self.width)


def draw_voice(rng: np.random.Generator) -> Voice:
    """A speaker; long vocal tracts (low formants) tend to go with low pitch, as in people."""
    size = rng.uniform(-1, 1)
    return Voice(
        pitch=float(np.clip(155 * 1.55 ** (0.7 * size + 0.45 * rng.uniform(-1, 1)), 90, 250)),
        formant_scale=float(np.clip(1 + 0.1 * size + 0.05 * rng.uniform(-1, 1), 0.85, 1.15)),
        open_quotient=float(rng.uniform(0.5, 0.7)),
        jitter=float(rng.uniform(0.004, 0.015)),
        vibrato=float(rng.uniform(0.005, 0.02)),
        vibrato_rate=float(rng.uniform(4.5, 6.5)),
        level=float(rng.uniform(0.08, 0.14)),
        floor=float(rng.uniform(6, 14)),
    )


def make_plan(rng: np.random.Generator, seconds: float) -> list[Segment]:
    """Phrases of syllables with pauses between them, about four syllables a second, pauses a fifth of the time."""
    plan, total = [Segment("pause", rng.uniform(0.1, 0.3))], 0.0
    names = list(VOWELS)
    while total < seconds:
        for _ in range(rng.integers(5, 10)):
            if rng.random() < 0.8 or plan[-1].sound == "pause":
                plan.append(Segment(str(rng.choice(list(CONSONANTS))), rng.uniform(0.06, 0.09)))
            plan.append(Segment(str(rng.choice(names, p=FREQUENCY)), rng.uniform(0.12, 0.28), rng.uniform(0.8, 1.25)))
        plan.append(Segment("pause", rng.uniform(0.25, 0.8)))
        total = sum(segment.seconds for segment in plan)
    return plan


def articulate(plan: list[Segment], seconds: float) -> Articulation:
    """The control tracks of a plan, cut at `seconds`: the lips leave and reach closure inside the vowels."""
    steps = [max(1, round(segment.seconds * CONTROL)) for segment in plan]
    ends = np.cumsum(steps)
    n = int(ends[-1])
    open_ramp, voicing, nasal, burst, effort = (np.zeros(n) for _ in range(5))
    for i, (segment, end, length) in enumerate(zip(plan, ends, steps, strict=True)):
        here = slice(end - length, end)
        if segment.sound in VOWELS:
            before, after = (i > 0 and plan[i - 1].sound in VOWELS), (i + 1 < len(plan) and plan[i + 1].sound in VOWELS)
            open_ramp[here] = _ramp(length, 0.06, not before, not after)
            voicing[here] = _ramp(length, 0.025, not before, not after) * (0.4 + 0.6 * segment.effort)
        elif segment.sound != "pause":
            voicing[here], nasal[here] = CONSONANTS[segment.sound], segment.sound == "m"
            burst[end - 2 : end] = 0.0 if segment.sound == "m" else 0.12 if segment.sound == "b" else 0.25
        effort[here] = segment.effort
    formants = _glide(np.repeat(_targets(plan), steps, axis=0))
    raised = CLOSED_F1 + (formants[:, 0] - CLOSED_F1) * _glide(effort) * open_ramp
    opening = np.clip((raised - CLOSED_F1) / (OPEN_F1 - CLOSED_F1), 0, 1)
    speaking = gaussian_filter1d((np.repeat([s.sound != "pause" for s in plan], steps)).astype(float), 0.015 * CONTROL)
    width = np.clip((formants[:, 1] - NEUTRAL_F2) / F2_REACH, -1, 1) * np.clip(2 * speaking - 1, 0, 1)
    formants[:, 0] = CLOSED_F1 + (OPEN_F1 - CLOSED_F1) * opening
    tracks = Articulation(formants, voicing, nasal, burst, _declination(plan, steps), opening, width)
    return Articulation(*(track[: round(seconds * CONTROL) + 1] for track in tracks))


def speak(voice: Voice, tracks: Articulation, samples: int, rng: np.random.Generator) -> np.ndarray:
    """The sound of the tracks: int16 (samples,), 16 kHz mono, with a faint noise floor everywhere."""
    clock, control = np.arange(samples) / RATE, np.arange(len(tracks.voicing)) / CONTROL
    voicing, nasal, burst, falling = (
        np.interp(clock, control, track) for track in (tracks.voicing, tracks.nasal, tracks.burst, tracks.declination)
    )
    breath = rng.standard_normal(samples)
    source = _glottis(voice, falling, clock, rng) * voicing + 0.012 * voicing * breath
    plosion = sosfilt(butter(2, (300, 1800), "bandpass", fs=RATE, output="sos"), breath) * burst
    shape = np.where(tracks.nasal[:, None] > 0.5, MURMUR, tracks.formants) * voice.formant_scale
    formants = np.stack([np.interp(clock, control, shape[:, i]) for i in range(3)], axis=1)
    sound = _resonate(source, formants, voice.formant_scale) * (1 - 0.3 * nasal) + plosion
    loud = np.sqrt(np.mean(sound[voicing > 0.5] ** 2)) if np.any(voicing > 0.5) else 1.0
    sound *= min(voice.level / loud, 0.9 / max(np.abs(sound).max(), 1e-9))
    noise = voice.floor * rng.standard_normal(samples)
    return np.clip(np.round(32767 * sound + noise), -32768, 32767).astype(np.int16)


def _glide(targets: np.ndarray) -> np.ndarray:
    """From one target to the next in about 40 ms, as lips and tongue do; symmetric in time, so that nothing lags."""
    return gaussian_filter1d(targets, 0.02 * CONTROL, axis=0, mode="nearest")


def _ramp(length: int, seconds: float, rises: bool, falls: bool) -> np.ndarray:
    """1 in the middle, raised cosines to 0 at the ends that meet closed lips. (length,)."""
    width = min(seconds * CONTROL, 0.45 * length)
    ramp, step = np.ones(length), np.arange(length)
    if rises:
        ramp = np.minimum(ramp, np.clip(step / width, 0, 1))
    if falls:
        ramp = np.minimum(ramp, np.clip((length - step) / width, 0, 1))
    return 0.5 - 0.5 * np.cos(np.pi * ramp)


def _targets(plan: list[Segment]) -> np.ndarray:
    """Formants to aim at, (segments, 3) Hz: closed lips already take the shape of the vowel to come."""
    targets, ahead = [], VOWELS["@"]
    for segment in reversed(plan):
        ahead = VOWELS["@"] if segment.sound == "pause" else VOWELS.get(segment.sound, ahead)
        targets.append(ahead)
    return np.array(targets[::-1])


def _declination(plan: list[Segment], steps: list[int]) -> np.ndarray:
    """1 at a phrase's start, 0 at its end: the line along which pitch falls."""
    pauses = np.repeat([segment.sound == "pause" for segment in plan], steps)
    edges = np.flatnonzero(np.diff(pauses.astype(int), prepend=1, append=1))
    track = np.zeros(len(pauses))
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        track[start:end] = np.linspace(1, 0, end - start)
    return track


def _glottis(voice: Voice, falling: np.ndarray, clock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Derivative of the glottal flow: a smooth opening, a faster closing and a closed rest in every period.

    A. E. Rosenberg, JASA 49 (1971), polynomial pulse. Jitter is drawn anew for each period.
    """
    drift = sum(
        np.sin(2 * np.pi * (rate * clock + rng.random())) for rate in (0.31 + 0.2 * rng.random(), 0.83 + rng.random())
    )
    pitch = voice.pitch * (0.92 + 0.18 * falling + 0.03 * drift)
    pitch *= 1 + voice.vibrato * np.sin(2 * np.pi * voice.vibrato_rate * clock)
    period = np.floor(np.cumsum(pitch) / RATE).astype(int)
    unsteady = rng.standard_normal(int(1.2 * period[-1]) + 8)
    phase = np.cumsum(pitch * (1 + voice.jitter * unsteady[period])) / RATE
    period, phase = np.floor(phase).astype(int), phase % 1.0
    rising = np.clip(phase / (0.7 * voice.open_quotient), 0, 1)
    closing = np.clip((phase - 0.7 * voice.open_quotient) / (0.3 * voice.open_quotient), 0, 1)
    flow = (3 * rising**2 - 2 * rising**3) * (1 - closing**2) * (1 + 3 * voice.jitter * unsteady[period])
    return np.diff(flow, prepend=flow[0]) * RATE / voice.pitch


def _resonate(source: np.ndarray, formants: np.ndarray, scale: float) -> np.ndarray:
    """F1 .. F5 in cascade, their poles renewed every 5 ms while the state is carried. formants: (samples, 3) Hz."""
    blocks = -(-len(source) // BLOCK)
    upper = np.broadcast_to(np.array(UPPER_FORMANTS) * scale, (blocks, 2))
    middle = formants[np.minimum(np.arange(blocks) * BLOCK + BLOCK // 2, len(source) - 1)]
    centre = np.minimum(np.concatenate([middle, upper], axis=1), 0.46 * RATE)  # (blocks, 5)
    radius = np.exp(-np.pi * BANDWIDTHS / RATE)
    sections = np.zeros((blocks, 5, 6))
    sections[..., 3] = 1
    sections[..., 4] = -2 * radius * np.cos(2 * np.pi * centre / RATE)
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(-1)  # unit gain at 0 Hz
    state, sound = np.zeros((5, 2)), np.empty(len(source))
    for k in range(blocks):
        here = slice(k * BLOCK, (k + 1) * BLOCK)
        sound[here], state = sosfilt(sections[k], source[here], zi=state)
    return sound
