"""The geometry of a drawn face: what makes an identity, what moves, and the 68 landmarks that follow exactly.

Face units: half the face's width is 1, the origin lies between the eyes, v points down. Only what a mouth moves
in a real face moves with the mouth: lips, chin and the jaw below its hinge.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, 0-255

EYE_U, EYE_V, MOUTH_V, BROW_V, NOSE_V = 0.42, 0.0, 1.03, -0.27, 0.60  # where the features sit, face units
STILL_JAW = 0.72  # above this share of the lower face's height nothing moves: cheeks must not tell what the lips do


@dataclass(frozen=True)
class Identity:
    """Everything that makes one face: colours 0-255, lengths in face units, the rest factors near 1 or 0."""

    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    cloth: Colour
    background: tuple[Colour, Colour]
    pattern: tuple[float, float, float]  # strength, stripes across the frame, direction in radians
    face_width: float  # half of it, as a fraction of the frame's side, at scale 1
    chin: float
    taper: float
    crown: float
    eye_size: float
    eye_distance: float
    brow: float
    brow_tilt: float
    nose: float
    nose_width: float
    mouth_width: float
    mouth_gap: float
    lip_upper: float
    lip_lower: float
    hairline: float
    parting: float
    hair_volume: float
    hair_length: float
    beard: float
    glasses: float
    ears: float
    light: float


class Pose(NamedTuple):
    """One frame's motion. x, y: the point between the eyes, fractions of the side; angle in radians; opening and lids
    0 closed .. 1 open; width -1 rounded .. 1 spread; gaze in face units."""

    x: float = 0.5
    y: float = 0.4
    scale: float = 1.0
    angle: float = 0.0
    opening: float = 0.0
    width: float = 0.0
    lids: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)


class Mouth(NamedTuple):
    """The lips' curves, all parabolas between the corners. gap: inner lips apart, face units."""

    centre: float
    gap: float
    half_width: float
    inner_width: float
    upper: float
    lower: float

    def inner(self, s: np.ndarray) -> np.ndarray:
        """Half the distance of the inner lips at s = u / inner_width."""
        return 0.5 * self.gap * (1 - s * s)

    def outer_top(self, s: np.ndarray) -> np.ndarray:
        """v of the upper lip's outer edge with its cupid's bow, at s = u / half_width."""
        bow = 1 - 0.2 * np.maximum(0, 1 - (s / 0.32) ** 2)
        return self.centre - (0.5 * self.gap + self.upper * bow) * (1 - s * s)

    def outer_bottom(self, s: np.ndarray) -> np.ndarray:
        """v of the lower lip's outer edge."""
        return self.centre + (0.5 * self.gap + self.lower) * (1 - s * s)


def rise(v: np.ndarray, who: Identity, pose: Pose) -> np.ndarray:
    """The inverse of `fall`: which v of the closed face is seen here."""
    hinge = STILL_JAW * who.chin
    stretch = 1 + jaw_drop(who, pose) / (who.chin - hinge)
    return np.where(v > hinge, hinge + (v - hinge) / stretch, v)


def mouth_of(who: Identity, pose: Pose) -> Mouth:
    """The upper lip rises by a fifth of the gap, the lower falls by the rest; rounded lips are narrow and thick."""
    gap = who.mouth_gap * pose.opening
    half = who.mouth_width * (1 + 0.2 * pose.width) * (1 - 0.06 * pose.opening)
    plump = 1 - 0.12 * pose.width
    return Mouth(MOUTH_V + 0.3 * gap, gap, half, half - 0.05, who.lip_upper * plump, who.lip_lower * plump)


def jaw_drop(who: Identity, pose: Pose) -> float:
    """How far the chin's tip falls, face units."""
    return 0.45 * who.mouth_gap * pose.opening


def landmarks(who: Identity, pose: Pose) -> np.ndarray:
    """The 68 points in dlib's order, (68, 2) float32 fractions of the frame's side."""
    points = np.concatenate([_jaw(who, pose), _brows(who), _nose(who), _eyes(who, pose), _lips(who, pose)])
    unit = who.face_width * pose.scale
    c, s = np.cos(pose.angle) * unit, np.sin(pose.angle) * unit
    turned = points @ np.array([[c, s], [-s, c]])
    return (turned + np.array([pose.x, pose.y])).astype(np.float32)


def _jaw(who: Identity, pose: Pose) -> np.ndarray:
    theta = np.linspace(0, np.pi, 17)
    u, v = -np.cos(theta) / (1 + who.taper * np.sin(theta)), who.chin * np.sin(theta)
    return np.stack([u, fall(v, who, pose)], 1)


def fall(v: np.ndarray, who: Identity, pose: Pose) -> np.ndarray:
    """Where the points at v of the closed face lie now: the jaw below its hinge stretches."""
    hinge = STILL_JAW * who.chin
    return v + jaw_drop(who, pose) * np.clip((v - hinge) / (who.chin - hinge), 0, None)


def _brows(who: Identity) -> np.ndarray:
    t = np.linspace(-1, 1, 5)
    left = np.stack([-EYE_U * who.eye_distance + 0.27 * t, brow_line(t, who)], 1)
    return np.concatenate([left, left[::-1] * (-1, 1)])


def brow_line(t: np.ndarray, who: Identity) -> np.ndarray:
    """v of the left brow, t = -1 at its outer end, 1 beside the nose."""
    return BROW_V + 0.07 * t * t + who.brow_tilt * t


def _nose(who: Identity) -> np.ndarray:
    tip = NOSE_V * who.nose
    bridge = np.stack([np.zeros(4), np.linspace(0.02, tip - 0.06, 4)], 1)
    t = np.linspace(-1, 1, 5)
    return np.concatenate([bridge, np.stack([0.17 * who.nose_width * t, tip + 0.07 - 0.04 * t * t], 1)])


def _eyes(who: Identity, pose: Pose) -> np.ndarray:
    rx, ry = eye_radii(who, pose)
    angle = np.array([np.pi, 1.33 * np.pi, 1.67 * np.pi, 0, 0.33 * np.pi, 0.67 * np.pi])
    ring = np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1)
    middle = np.array([EYE_U * who.eye_distance, 0])
    return np.concatenate([ring - middle, ring + middle])


def eye_radii(who: Identity, pose: Pose) -> tuple[float, float]:
    return 0.19 * who.eye_size, max(0.105 * who.eye_size * pose.lids, 1e-3)


def _lips(who: Identity, pose: Pose) -> np.ndarray:
    m = mouth_of(who, pose)
    s, q = np.array([-1, -0.62, -0.25, 0, 0.25, 0.62, 1.0]), np.array([-1, -0.5, 0, 0.5, 1.0])
    top, bottom = np.stack([s * m.half_width, m.outer_top(s)], 1), np.stack([s * m.half_width, m.outer_bottom(s)], 1)
    upper = np.stack([q * m.inner_width, m.centre - m.inner(q)], 1)
    lower = np.stack([q * m.inner_width, m.centre + m.inner(q)], 1)
    return np.concatenate([top, bottom[5:0:-1], upper, lower[3:0:-1]])
