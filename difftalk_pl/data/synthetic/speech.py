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

from difftalk_pl.data.features.windows import RATE

CONTROL = 200  # articulation steps a second
BLOCK = RATE // CONTROL  # samples for which the resonators hold still: 5 ms
CLOSED_F1, OPEN_F1 = 220.0, 800.0  # Hz, the first formant while the lips touch, and of a mouth as wide as it goes
NEUTRAL_F2, F2_REACH = 1450.0, 850.0  # Hz; lips at rest, and the distance that spreads or rounds them fully
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 220.0, 300.0])  # Hz, F1 .. F5
UPPER_FORMANTS = (3500.0, 4500.0)  # Hz, F4 and F5 do not move
MURMUR = (250.0, 1100.0, 2250.0, *UPPER_FORMANTS)  # Hz, the nasal tract behind closed lips
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


class Segment(NamedTuple):
    """One piece of the plan: a vowel's name, "b", "m", "p" or "pause"; effort 1 is ordinary."""

    sound: str
    seconds: float
    vowel: str = "@"  # closed lips already take the shape of the vowel to come
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
            closed = []
            if rng.random() < 0.8 or plan[-1].sound == "pause":
                closed = [(str(rng.choice(list(CONSONANTS))), rng.uniform(0.06, 0.09))]
            vowel = str(rng.choice(list(VOWELS), p=FREQUENCY))
            plan += [Segment(*consonant, vowel) for consonant in closed]
            plan.append(Segment(vowel, rng.uniform(0.12, 0.28), vowel, rng.uniform(0.8, 1.25)))
        plan.append(Segment("pause", rng.uniform(0.25, 0.8)))
        total = sum(segment.seconds for segment in plan)
    return plan


def articulate(plan: list[Segment], seconds: float) -> dict[str, np.ndarray]:
    """Compute the control tracks of a plan at 200 Hz, cut at `seconds`; the lips open and close inside the vowels.

    Returns:
        opening (0 closed .. 1 wide), width (-1 rounded .. 1 spread), voicing, nasal, burst, declination (1 .. 0 over a
        phrase: the line along which pitch falls), (N,) each, and formants (N, 5) in Hz before the speaker's scale.
    """
    steps = [max(1, round(segment.seconds * CONTROL)) for segment in plan]
    vowel = [False, *(segment.sound in VOWELS for segment in plan), False]
    ends, n = np.cumsum(steps), sum(steps)
    ramp, voicing, nasal, burst = (np.zeros(n) for _ in range(4))
    for i, (segment, end, length) in enumerate(zip(plan, ends, steps, strict=True)):
        here = slice(end - length, end)
        if vowel[i + 1]:
            alone = not vowel[i], not vowel[i + 2]
            ramp[here] = _ramp(length, 0.06, *alone)
            voicing[here] = _ramp(length, 0.025, *alone) * (0.4 + 0.6 * segment.effort)
        elif segment.sound != "pause":
            voicing[here], burst[end - 2 : end] = CONSONANTS[segment.sound]
            nasal[here] = segment.sound == "m"
    targets = [(segment.effort, *VOWELS[segment.vowel], *UPPER_FORMANTS) for segment in plan]
    # From one target to the next in about 40 ms, as lips and tongue go, symmetric in time
    glides = gaussian_filter1d(np.repeat(targets, steps, axis=0), 0.02 * CONTROL, axis=0, mode="nearest")
    effort, formants = glides[:, 0], glides[:, 1:]
    opening = np.clip((formants[:, 0] - CLOSED_F1) * effort * ramp / (OPEN_F1 - CLOSED_F1), 0, 1)
    sounds = np.repeat([segment.sound != "pause" for segment in plan], steps).astype(float)
    speaking = np.clip(2 * gaussian_filter1d(sounds, 0.015 * CONTROL) - 1, 0, 1)
    width = np.clip((formants[:, 1] - NEUTRAL_F2) / F2_REACH, -1, 1) * speaking
    formants[:, 0] = CLOSED_F1 + (OPEN_F1 - CLOSED_F1) * opening
    edges = np.flatnonzero(np.diff(sounds, prepend=0, append=0))  # where phrases begin and end
    edges[1::2] -= 1
    tracks = {"opening": opening, "width": width, "voicing": voicing, "nasal": nasal, "burst": burst}
    tracks |= {"declination": sounds * np.interp(np.arange(n), edges, np.tile([1, 0], len(edges) // 2))}
    return {name: track[: round(seconds * CONTROL) + 1] for name, track in {**tracks, "formants": formants}.items()}


def speak(voice: SimpleNamespace, tracks: dict[str, np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """Synthesize the tracks: int16 (samples,), 16 kHz mono, with a faint noise floor everywhere."""
    clock, control = np.arange(samples) / RATE, np.arange(len(tracks["voicing"])) / CONTROL
    names = "voicing", "nasal", "burst", "declination"
    voicing, nasal, burst, falling = (np.interp(clock, control, tracks[name]) for name in names)
    breath = rng.standard_normal(samples)
    source = _glottis(voice, falling, clock, rng) * voicing + 0.012 * voicing * breath
    plosion = sosfilt(butter(2, (300, 1800), "bandpass", fs=RATE, output="sos"), breath) * burst
    shape = np.where(tracks["nasal"][:, None] > 0.5, MURMUR, tracks["formants"]) * voice.formant_scale
    middle = np.minimum(np.arange(0, samples, BLOCK) + BLOCK // 2, samples - 1) / RATE
    formants = np.stack([np.interp(middle, control, track) for track in shape.T], axis=1)
    sound = _resonate(source, formants) * (1 - 0.3 * nasal) + plosion
    loud = np.sqrt(np.mean(sound[voicing > 0.5] ** 2)) if np.any(voicing > 0.5) else 1.0
    sound *= min(voice.level / loud, 0.9 / max(np.abs(sound).max(), 1e-9))
    noise = voice.floor * rng.standard_normal(samples)
    return np.clip(np.round(32767 * sound + noise), -32768, 32767).astype(np.int16)


def _ramp(length: int, seconds: float, rises: bool, falls: bool) -> np.ndarray:
    """Return 1 in the middle and raised cosines to 0 at the ends that meet closed lips, (length,)."""
    width, step = min(seconds * CONTROL, 0.45 * length), np.arange(length)
    up, down = np.clip(step / width, 0, 1), np.clip((length - step) / width, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(up if rises else 1.0, down if falls else np.ones(length)))


def _glottis(voice: SimpleNamespace, falling: np.ndarray, clock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the derivative of the glottal flow: in every period a smooth opening, a faster closing and a rest.

    A. E. Rosenberg, JASA 49 (1971), polynomial pulse. Jitter is drawn anew for each period.
    """
    rates = 0.31 + 0.2 * rng.random(), 0.83 + rng.random()
    drift = sum(np.sin(2 * np.pi * (rate * clock + rng.random())) for rate in rates)
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


def _resonate(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Pass F1 .. F5, (blocks, 5) Hz, in cascade; their poles are renewed every 5 ms and the state is kept."""
    radius, turn = np.exp(-np.pi * BANDWIDTHS / RATE), np.cos(2 * np.pi * np.minimum(formants, 0.46 * RATE) / RATE)
    poles = np.stack([np.ones_like(turn), -2 * radius * turn, np.broadcast_to(radius**2, turn.shape)], axis=-1)
    gain = poles.sum(-1, keepdims=True) * (1, 0, 0)  # 1 at 0 Hz
    state, sound = np.zeros((5, 2)), np.empty(len(source))
    for k, sections in enumerate(np.concatenate([gain, poles], axis=-1)):
        here = slice(k * BLOCK, (k + 1) * BLOCK)
        sound[here], state = sosfilt(sections, source[here], zi=state)
    return sound
