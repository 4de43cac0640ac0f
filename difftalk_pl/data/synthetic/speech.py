"""Formant speech whose mouth is known: the sound half of the synthetic clips.

A plan of syllables drives sound and lips alike. F1 rises from its closed value only as far as the mouth is open, as in
a vocal tract, so that the opening can be heard; F2 tells how wide the lips are. Neither signal lags behind the other.
Resonators in cascade after D. H. Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67 (1980).
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from difftalk_pl.data.features.windows import FPS, RATE

CONTROL = 200  # articulation steps a second
BLOCK = RATE // CONTROL  # samples for which the resonators hold still: 5 ms
CLOSED_F1, OPEN_F1 = 220.0, 800.0  # Hz, the first formant while the lips touch, and of a mouth as wide as it goes
NEUTRAL_F2, F2_REACH = 1450.0, 850.0  # Hz; lips at rest, and the distance that spreads or rounds them fully
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 220.0, 300.0])  # Hz, F1 .. F5
UPPER_FORMANTS = (3500.0, 4500.0)  # Hz, F4 and F5 do not move
MURMUR = (250.0, 1100.0, 2250.0)  # Hz, the nasal tract behind closed lips
VOICE = {  # ranges of what stays the same in a speaker's sound, besides pitch (Hz) and formant_scale (a factor)
    "open_quotient": (0.5, 0.7),
    "jitter": (0.004, 0.015),
    "vibrato": (0.005, 0.02),
    "vibrato_rate": (4.5, 6.5),  # Hz
    "level": (0.08, 0.14),
    "floor": (6, 14),  # of the noise, int16 steps
}
# Mean formants of men, Hz: G. E. Peterson and H. L. Barney, JASA 24 (1952); "e" and "@" by interpolation.
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
FREQUENCY = (0.08, 0.12, 0.13, 0.15, 0.17, 0.12, 0.10, 0.06, 0.07)  # of the vowels; open ones more than in speech
CONSONANTS = {"b": (0.05, 0.12), "m": (0.3, 0.0), "p": (0.0, 0.25)}  # closed lips: loudness of voicing and burst

Tracks = dict[str, np.ndarray]


class Segment(NamedTuple):
    """One piece of the plan: a vowel's name, "b", "m", "p" or "pause"; seconds; effort 1 is ordinary."""

    sound: str
    seconds: float
    effort: float = 1.0


def draw_voice(rng: np.random.Generator) -> SimpleNamespace:
    """Draw a speaker; low formants (long vocal tracts) tend to go with low pitch, as in people."""
    size = rng.uniform(-1, 1)
    pitch = float(np.clip(155 * 1.55 ** (0.7 * size + 0.45 * rng.uniform(-1, 1)), 90, 250))
    scale = float(np.clip(1 + 0.1 * size + 0.05 * rng.uniform(-1, 1), 0.85, 1.15))
    traits = {name: float(rng.uniform(*limits)) for name, limits in VOICE.items()}
    return SimpleNamespace(pitch=pitch, formant_scale=scale, **traits)


def make_plan(rng: np.random.Generator, seconds: float) -> list[Segment]:
    """Draw phrases of about four syllables a second with pauses between them, a fifth of the time."""
    plan, total = [Segment("pause", rng.uniform(0.1, 0.3))], 0.0
    while total < seconds:
        for _ in range(rng.integers(5, 10)):
            if rng.random() < 0.8 or plan[-1].sound == "pause":
                plan.append(Segment(str(rng.choice(list(CONSONANTS))), rng.uniform(0.06, 0.09)))
            vowel = str(rng.choice(list(VOWELS), p=FREQUENCY))
            plan.append(Segment(vowel, rng.uniform(0.12, 0.28), rng.uniform(0.8, 1.25)))
        plan.append(Segment("pause", rng.uniform(0.25, 0.8)))
        total = sum(segment.seconds for segment in plan)
    return plan


def articulate(plan: list[Segment], seconds: float) -> Tracks:
    """Compute the control tracks of a plan at 200 Hz, cut at `seconds`; the lips open and close inside the vowels.

    Returns:
        opening (0 closed .. 1 wide), width (-1 rounded .. 1 spread), voicing, nasal, burst, declination (1 .. 0 over a
        phrase), (N,) each, and formants (N, 3) in Hz before the speaker's scale.
    """
    steps = [max(1, round(segment.seconds * CONTROL)) for segment in plan]
    vowel = [False, *(segment.sound in VOWELS for segment in plan), False]
    ends, n = np.cumsum(steps), sum(steps)
    ramp, voicing, nasal, burst = (np.zeros(n) for _ in range(4))
    for i, (segment, end, length) in enumerate(zip(plan, ends, steps, strict=True)):
        here = slice(end - length, end)
        if segment.sound in VOWELS:
            alone = not vowel[i], not vowel[i + 2]
            ramp[here] = _ramp(length, 0.06, *alone)
            voicing[here] = _ramp(length, 0.025, *alone) * (0.4 + 0.6 * segment.effort)
        elif segment.sound != "pause":
            voicing[here], burst[end - 2 : end] = CONSONANTS[segment.sound]
            nasal[here] = segment.sound == "m"
    formants = _glide(np.repeat(_targets(plan), steps, axis=0))
    effort = _glide(np.repeat([segment.effort for segment in plan], steps))
    raised = CLOSED_F1 + (formants[:, 0] - CLOSED_F1) * effort * ramp
    opening = np.clip((raised - CLOSED_F1) / (OPEN_F1 - CLOSED_F1), 0, 1)
    sounds = np.repeat([segment.sound != "pause" for segment in plan], steps)
    speaking = gaussian_filter1d(sounds.astype(float), 0.015 * CONTROL)
    width = np.clip((formants[:, 1] - NEUTRAL_F2) / F2_REACH, -1, 1) * np.clip(2 * speaking - 1, 0, 1)
    formants[:, 0] = CLOSED_F1 + (OPEN_F1 - CLOSED_F1) * opening
    tracks = {"opening": opening, "width": width, "voicing": voicing, "nasal": nasal, "burst": burst}
    tracks |= {"declination": _declination(sounds), "formants": formants}
    return {name: track[: round(seconds * CONTROL) + 1] for name, track in tracks.items()}


def at_frames(track: np.ndarray, frames: int) -> np.ndarray:
    """Return a control track at k / 25 s, (frames,)."""
    return np.interp(np.arange(frames) / FPS, np.arange(len(track)) / CONTROL, track)


def speak(voice: SimpleNamespace, tracks: Tracks, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Synthesize the tracks: int16 (samples,), 16 kHz mono, with a faint noise floor everywhere."""
    clock, control = np.arange(samples) / RATE, np.arange(len(tracks["voicing"])) / CONTROL
    names = "voicing", "nasal", "burst", "declination"
    voicing, nasal, burst, falling = (np.interp(clock, control, tracks[name]) for name in names)
    breath = rng.standard_normal(samples)
    source = _glottis(voice, falling, clock, rng) * voicing + 0.012 * voicing * breath
    plosion = sosfilt(butter(2, (300, 1800), "bandpass", fs=RATE, output="sos"), breath) * burst
    shape = np.where(tracks["nasal"][:, None] > 0.5, MURMUR, tracks["formants"]) * voice.formant_scale
    formants = np.stack([np.interp(clock, control, shape[:, i]) for i in range(3)], axis=1)
    sound = _resonate(source, formants, voice.formant_scale) * (1 - 0.3 * nasal) + plosion
    loud = np.sqrt(np.mean(sound[voicing > 0.5] ** 2)) if np.any(voicing > 0.5) else 1.0
    sound *= min(voice.level / loud, 0.9 / max(np.abs(sound).max(), 1e-9))
    noise = voice.floor * rng.standard_normal(samples)
    return np.clip(np.round(32767 * sound + noise), -32768, 32767).astype(np.int16)


def _glide(targets: np.ndarray) -> np.ndarray:
    """Pass from one target to the next in about 40 ms, as lips and tongue do; symmetric in time."""
    return gaussian_filter1d(targets, 0.02 * CONTROL, axis=0, mode="nearest")


def _ramp(length: int, seconds: float, rises: bool, falls: bool) -> np.ndarray:
    """Return 1 in the middle and raised cosines to 0 at the ends that meet closed lips, (length,)."""
    width, step = min(seconds * CONTROL, 0.45 * length), np.arange(length)
    up, down = np.clip(step / width, 0, 1), np.clip((length - step) / width, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(up if rises else 1.0, down if falls else np.ones(length)))


def _targets(plan: list[Segment]) -> np.ndarray:
    """Return the formants to aim at, (segments, 3) Hz: closed lips already take the shape of the vowel to come."""
    targets, ahead = [], VOWELS["@"]
    for segment in reversed(plan):
        ahead = VOWELS["@"] if segment.sound == "pause" else VOWELS.get(segment.sound, ahead)
        targets.append(ahead)
    return np.array(targets[::-1])


def _declination(sounds: np.ndarray) -> np.ndarray:
    """Return the line along which pitch falls: 1 at a phrase's start, 0 at its end. sounds: not a pause, (N,)."""
    edges, track = np.flatnonzero(np.diff(sounds.astype(int), prepend=0, append=0)), np.zeros(len(sounds))
    for start, end in edges.reshape(-1, 2):
        track[start:end] = np.linspace(1, 0, end - start)
    return track


def _glottis(voice: SimpleNamespace, falling: np.ndarray, clock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the derivative of the glottal flow: in every period a smooth opening, a faster closing and a rest.

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
    """Pass F1 .. F5 in cascade, their poles renewed every 5 ms while the state is kept. formants: (samples, 3) Hz."""
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
