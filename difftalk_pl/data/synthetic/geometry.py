"""The geometry of a drawn face: the traits of a person, what moves, and the 68 landmarks that follow exactly.

Face units: half the face's width is 1, the origin lies between the eyes, v points down. As in a real face, lips, chin
and the jaw below its hinge move with the mouth, and nothing else does.
"""

import colorsys
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

EYE_U, MOUTH_V, BROW_V, NOSE_V = 0.42, 1.03, -0.27, 0.60  # where the features sit, face units
STILL_JAW = 0.72  # above this share of the lower face's height nothing moves: cheeks must not tell what the lips do
TRAITS = {  # ranges of the numbers that make a face: lengths in face units, the rest factors near 1 or 0
    "stripe_strength": (0, 0.09),
    "stripes": (1, 6),  # across the frame
    "stripe_direction": (0, np.pi),
    "face_width": (0.235, 0.265),  # half of it, as a fraction of the frame's side, at scale 1
    "chin": (1.42, 1.56),
    "taper": (0.06, 0.26),
    "crown": (1.2, 1.36),
    "eye_size": (0.88, 1.15),
    "eye_distance": (0.92, 1.06),
    "brow": (0.5, 1.3),
    "brow_tilt": (-0.05, 0.05),
    "nose": (0.94, 1.06),
    "nose_width": (0.8, 1.25),
    "mouth_width": (0.40, 0.48),
    "mouth_gap": (0.42, 0.52),
    "lip_upper": (0.06, 0.11),
    "lip_lower": (0.09, 0.15),
    "hairline": (-1.0, -0.72),
    "parting": (-0.22, 0.22),
    "hair_volume": (1.01, 1.14),
    "hair_length": (-1.0, 1.0),  # long hair where positive
    "beard": (-1.6, 0.85),  # a beard where positive
    "glasses": (0, 1),  # glasses below 0.25
    "ears": (0.9, 1.3),
}
Identity = SimpleNamespace  # the TRAITS, colours of skin, lips, hair, eyes, cloth, wall_top, wall_bottom; light -1 .. 1


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
    gaze_u: float = 0.0
    gaze_v: float = 0.0


class Mouth:
    """The curves of the lips, parabolas between the corners; the upper lip rises by a fifth of the gap between them."""

    def __init__(self, who: Identity, pose: Pose) -> None:
        self.gap = who.mouth_gap * pose.opening
        self.jaw_drop = 0.45 * who.mouth_gap * pose.opening  # how far the chin's tip falls
        self.centre = MOUTH_V + 0.3 * self.gap
        self.half_width = who.mouth_width * (1 + 0.2 * pose.width) * (1 - 0.06 * pose.opening)
        self.inner_width = self.half_width - 0.05
        self.upper, self.lower = (lip * (1 - 0.12 * pose.width) for lip in (who.lip_upper, who.lip_lower))

    def inner(self, s: np.ndarray) -> np.ndarray:
        """Return half the distance of the inner lips at s = u / inner_width."""
        return 0.5 * self.gap * (1 - s * s)

    def outer_top(self, s: np.ndarray) -> np.ndarray:
        """Return v of the upper lip's outer edge with its cupid's bow, at s = u / half_width."""
        bow = 1 - 0.2 * np.maximum(0, 1 - (s / 0.32) ** 2)
        return self.centre - (0.5 * self.gap + self.upper * bow) * (1 - s * s)

    def outer_bottom(self, s: np.ndarray) -> np.ndarray:
        """Return v of the lower lip's outer edge."""
        return self.centre + (0.5 * self.gap + self.lower) * (1 - s * s)


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draw a person, with colours (3, 1, 1) float32, 0-255; skin and lips are far lighter than the open mouth."""
    tone, warmth = rng.random(), rng.uniform(-1, 1)
    who = Identity(skin=_hsv(0.065 + 0.012 * warmth, 0.34 + 0.18 * tone, 0.96 - 0.38 * tone))
    red, saturation, darker = rng.uniform(-0.03, 0.025), rng.uniform(0.4, 0.54), rng.uniform(-0.06, 0.06)
    brown, pale, light = rng.uniform(0.04, 0.12), rng.uniform(0.15, 0.75), rng.choice([0.16, 0.3, 0.5, 0.75])
    who.lips = _hsv(red, saturation, max(0.62, 0.86 - 0.26 * tone + darker))
    who.hair = _hsv(brown, pale, light + rng.uniform(0, 0.15))
    wall, iris = rng.random(), rng.choice([0.07, 0.3, 0.58]) + rng.uniform(-0.04, 0.04)
    who.eyes = _hsv(iris, rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.7))
    who.cloth = _hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.5, 0.9))
    who.wall_top = _hsv(wall, rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.95))
    who.wall_bottom = _hsv(wall + rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.6))
    vars(who).update({name: float(rng.uniform(*limits)) for name, limits in TRAITS.items()})
    who.light = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0))
    return who


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return rgb(*(255 * part for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, min(1.0, value))))


def rgb(*levels: float) -> np.ndarray:
    """Return a colour, red, green and blue 0-255, that paints (3, H, W) float32."""
    return np.array(levels, np.float32)[:, None, None]


def brow_line(t: np.ndarray, who: Identity) -> np.ndarray:
    """Return v of the left brow, t = -1 at its outer end, 1 beside the nose."""
    return BROW_V + 0.07 * t * t + who.brow_tilt * t


def eye_radii(who: Identity, pose: Pose) -> tuple[float, float]:
    """Return half the width and half the height of the open eye."""
    return 0.19 * who.eye_size, max(0.105 * who.eye_size * pose.lids, 1e-3)


def landmarks(who: Identity, pose: Pose) -> np.ndarray:
    """Return the 68 points in dlib's order, (68, 2) float32 fractions of the frame's side."""
    theta, hinge, tip, mouth = np.linspace(0, np.pi, 17), STILL_JAW * who.chin, NOSE_V * who.nose, Mouth(who, pose)
    u, v = -np.cos(theta) / (1 + who.taper * np.sin(theta)), who.chin * np.sin(theta)
    jaw = u, v + mouth.jaw_drop * np.clip((v - hinge) / (who.chin - hinge), 0, None)
    t, angle = np.linspace(-1, 1, 5), np.array([np.pi, 1.33 * np.pi, 1.67 * np.pi, 0, 0.33 * np.pi, 0.67 * np.pi])
    u, v = -EYE_U * who.eye_distance + 0.27 * t, brow_line(t, who)
    brows = np.append(u, -u[::-1]), np.append(v, v[::-1])
    bridge = np.zeros(4), np.linspace(0.02, tip - 0.06, 4)
    nostrils = 0.17 * who.nose_width * t, tip + 0.07 - 0.04 * t * t
    (rx, ry), middle = eye_radii(who, pose), EYE_U * who.eye_distance
    eyes = [(rx * np.cos(angle) + side * middle, ry * np.sin(angle)) for side in (-1, 1)]
    s, q = np.array([-1, -0.62, -0.25, 0, 0.25, 0.62, 1.0]), np.array([-1, -0.5, 0, 0.5, 1.0])
    back, inner = s[5:0:-1], q[3:0:-1]
    outer_lips = np.append(s, back) * mouth.half_width, np.append(mouth.outer_top(s), mouth.outer_bottom(back))
    v = np.append(-mouth.inner(q), mouth.inner(inner)) + mouth.centre
    inner_lips = np.append(q, inner) * mouth.inner_width, v
    parts = jaw, brows, bridge, nostrils, *eyes, outer_lips, inner_lips
    c, s = (turn(pose.angle) * who.face_width * pose.scale for turn in (np.cos, np.sin))
    points = np.concatenate([np.stack(part, axis=1) for part in parts]) @ np.array([[c, s], [-s, c]])
    return (points + np.array([pose.x, pose.y])).astype(np.float32)
