"""Draw a face: the picture half of the synthetic clips.

Every shape is a signed distance in face units, turned into coverage over one pixel: smooth edges at any size. Nothing
outside mouth, chin and lower jaw depends on the opening, and the inner mouth is far darker than anything near it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from difftalk_pl.data.synthetic import geometry
from difftalk_pl.data.synthetic.geometry import BROW_V, EYE_U, NOSE_V, Identity, Mouth, Pose, rgb

Shape = Callable[[Any, Any], Any]  # (u, v) -> signed distance, negative inside

INNER_MOUTH, TEETH, TONGUE = rgb(26, 10, 12), rgb(228, 222, 208), rgb(168, 74, 78)
EYE_WHITE, PUPIL, GLINT, FRAMES = rgb(238, 236, 232), rgb(18, 16, 18), rgb(250, 250, 250), rgb(40, 38, 42)


class Canvas:
    """A frame being painted, (3, S, S) float32, with the face's coordinates of every pixel."""

    def __init__(self, image: np.ndarray, who: Identity, pose: Pose) -> None:
        self.image, self.size, self.unit, self.pose = image, image.shape[-1], who.face_width * pose.scale, pose
        self.sharp = self.size * self.unit  # pixels in one face unit
        self.c, self.s = float(np.cos(pose.angle)), float(np.sin(pose.angle))
        x, y = _pixels(self.size)
        dx, dy = (x - pose.x) / self.unit, (y - pose.y) / self.unit
        self.u, self.v = self.c * dx + self.s * dy, self.c * dy - self.s * dx

    def paint(self, box, shape: Shape, colour, alpha=1.0, soft=0.0, inside: Shape | None = None) -> None:
        """Lay a colour, (3, 1, 1) or a function of (u, v), over a shape inside a box, (u0, v0, u1, v1).

        soft: width of its edge in face units.
        """
        u, v = np.array(box)[[0, 2, 0, 2]], np.array(box)[[1, 1, 3, 3]]
        x = (self.pose.x + self.unit * (self.c * u - self.s * v)) * self.size
        y = (self.pose.y + self.unit * (self.s * u + self.c * v)) * self.size
        rows, columns = (slice(max(0, int(at.min()) - 1), max(0, int(at.max()) + 3)) for at in (y, x))
        u, v, patch = self.u[rows, columns], self.v[rows, columns], self.image[:, rows, columns]
        cover = np.clip(0.5 - shape(u, v) * (1 / max(soft, 1 / self.sharp)), 0, 1)
        if inside is not None:
            cover *= np.clip(0.5 - inside(u, v) * self.sharp, 0, 1)
        patch += (alpha * cover) * ((colour(u, v) if callable(colour) else colour) - patch)

    def oval(self, u: float, v: float, ru: float, rv: float, colour, alpha=1.0, soft=0.0, inside=None) -> None:
        """Lay a colour over an ellipse."""
        du, dv = ru + soft + 0.06, rv + soft + 0.06
        self.paint((u - du, v - dv, u + du, v + dv), ellipse(u, v, ru, rv), colour, alpha, soft, inside)


def _pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of the pixels as fractions of the side: x (1, S), y (S, 1)."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None], centres[:, None]


def ellipse(cu: float, cv: float, ru: float, rv: float) -> Shape:
    """Return the signed distance to an ellipse, first order at its edge."""

    def distance(u, v):
        a, b = (u - cu) / ru, (v - cv) / rv
        reach = np.sqrt(a * a + b * b)
        return (reach - 1) * reach / np.maximum(np.sqrt((a / ru) ** 2 + (b / rv) ** 2), 1e-6)

    return distance


def draw_background(who: Identity, size: int) -> np.ndarray:
    """Draw wall and clothes, which never move: (3, S, S) float32, 0-255."""
    (x, y), angle = _pixels(size), who.stripe_direction
    wave = np.sin(2 * np.pi * who.stripes * (x * np.cos(angle) + y * np.sin(angle)))
    wall = who.wall_top + (who.wall_bottom - who.wall_top) * (0.75 * y + 0.25 * x)
    image = wall * (1 + who.stripe_strength * wave)
    cover = np.clip(0.5 - ellipse(0.5, 1.12, 1.75 * who.face_width, 0.30)(x, y) * size, 0, 1)
    cloth = who.cloth * (1.1 - 0.35 * np.abs(x - 0.5 - 0.15 * who.light))
    return (image + cover * (cloth - image)).astype(np.float32)


def draw(who: Identity, pose: Pose, background: np.ndarray) -> np.ndarray:
    """Draw one frame over a still background (3, S, S) float32: (S, S, 3) uint8."""
    canvas, mouth = Canvas(background.copy(), who, pose), Mouth(who, pose)
    if who.hair_length > 0:
        bottom = 0.7 + who.hair_length
        canvas.oval(0, 0.5 * (bottom - 1.1), 1.12 * who.hair_volume, 0.5 * (bottom + 1.1), 0.75 * who.hair)
    canvas.oval(0, 1.5, 0.52, 0.82, 0.74 * who.skin)  # neck
    for side in (-0.98, 0.98):
        canvas.oval(side, 0.18, 0.13 * who.ears, 0.24, 0.86 * who.skin)
    _draw_head(canvas, who, mouth)
    for side in (-1.0, 1.0):
        _draw_eye(canvas, who, pose, side)
    _draw_nose(canvas, who)
    _draw_hair(canvas, who)
    _draw_lips(canvas, who, mouth)
    return np.ascontiguousarray(np.clip(canvas.image + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _draw_head(canvas: Canvas, who: Identity, mouth: Mouth) -> None:
    """Face with a soft light from one side, darker towards its edge; rosy cheeks; a beard along the jaw."""
    hinge = geometry.STILL_JAW * who.chin
    stretch = 1 + mouth.jaw_drop / (who.chin - hinge)

    def closed(v):
        """Which v of the closed face lies at v now: the jaw below its hinge stretches."""
        return np.where(v > hinge, hinge + (v - hinge) / stretch, v)

    def outline(u, v):
        """Through the jaw's landmarks; above the eyes an ellipse of the crown's height."""
        still = closed(v)
        height = np.where(still > 0, who.chin, who.crown).astype(np.float32)
        a, b = u * (1 + who.taper * np.maximum(still, 0) / who.chin), still / height
        reach = np.sqrt(a * a + b * b)
        return (reach - 1) * reach / np.maximum(np.sqrt(a * a + (b / height) ** 2), 1e-6)

    def lit(u, v):
        return who.skin * (1.06 + 0.1 * who.light * u - 0.05 * v - 0.16 * np.minimum(u * u, 1.0))

    def along_jaw(u, v):
        return np.maximum(-0.16 - outline(u, v), 0.75 * who.chin - closed(v) - 0.25 * u * u)

    bottom = who.chin + mouth.jaw_drop + 0.05
    canvas.paint((-1.05, -who.crown - 0.05, 1.05, bottom), outline, lit)
    for side in (-0.55, 0.55):
        canvas.oval(side, 0.5, 0.2, 0.16, who.skin * rgb(0.96, 0.86, 0.86) + rgb(9, 0, 0), 0.6, soft=0.3)
    if who.beard > 0:
        fur = 0.4 * who.hair + 0.6 * who.skin
        canvas.paint((-1, 0.3, 1, bottom), along_jaw, fur, who.beard, soft=0.14, inside=outline)


def _draw_eye(canvas: Canvas, who: Identity, pose: Pose, side: float) -> None:
    """Eyeball, iris, pupil, a glint, the upper lid's line, brow, and glasses."""
    u, (ru, rv), is_open = side * EYE_U * who.eye_distance, geometry.eye_radii(who, pose), pose.lids > 0.15
    ball, x, y = ellipse(u, 0, ru, max(rv, 0.012)), u + pose.gaze_u, pose.gaze_v
    canvas.oval(u, -0.02, 0.24, 0.14, 0.84 * who.skin, 0.7, soft=0.16)
    canvas.oval(u, 0, ru, max(rv, 0.012), EYE_WHITE if is_open else 0.6 * who.skin)
    if is_open:
        canvas.oval(x, y, 0.092, 0.092, who.eyes, inside=ball)
        canvas.oval(x, y, 0.042, 0.042, PUPIL, inside=ball)
        canvas.oval(x - 0.03, y - 0.03, 0.02, 0.02, GLINT, inside=ball)

    def lid(a, b):
        return np.abs(b + rv * np.sqrt(np.maximum(1 - ((a - u) / (ru + 0.02)) ** 2, 0)) + 0.01) - 0.02

    def brow(a, b):
        return np.abs(b - geometry.brow_line((a - u) / 0.27 * -side, who)) - 0.05 * who.brow

    canvas.paint((u - ru - 0.02, -0.2, u + ru + 0.02, 0.05), lid, 0.42 * who.skin)
    box, ends = (u - 0.32, BROW_V - 0.3, u + 0.32, BROW_V + 0.3), ellipse(u, BROW_V, 0.3, 0.4)
    canvas.paint(box, brow, 0.8 * who.hair, 0.9, inside=ends)
    if who.glasses < 0.25:
        lens = ellipse(u, 0.03, 0.33, 0.27)
        canvas.paint((u - 0.4, -0.32, u + 0.4, 0.38), lambda a, b: np.abs(lens(a, b)) - 0.022, FRAMES, 0.9)
        canvas.paint((0.08 * side - 0.1, -0.06, 0.08 * side + 0.1, 0.06), ellipse(0, 0, 0.16, 0.022), FRAMES, 0.9)


def _draw_nose(canvas: Canvas, who: Identity) -> None:
    """The bridge's shadow, the tip with its light, and the nostrils."""
    tip, wide, away = NOSE_V * who.nose, 0.17 * who.nose_width, -0.06 if who.light > 0 else 0.06
    bridge, light = ellipse(away, 0.5 * tip, 0.045, 0.42 * tip), ellipse(-away, tip - 0.04, 0.06, 0.05)
    canvas.paint((away - 0.15, 0, away + 0.15, tip), bridge, 0.82 * who.skin, 0.7, soft=0.1)
    canvas.oval(0, tip + 0.03, wide, 0.085, 0.86 * who.skin, 0.9, soft=0.08)
    canvas.paint((-wide, tip - 0.2, wide, tip + 0.2), light, np.minimum(1.14 * who.skin, 255), 0.8, soft=0.08)
    for side in (-0.55, 0.55):
        canvas.oval(side * wide, tip + 0.055, 0.055, 0.03, 0.55 * who.skin)


def _draw_hair(canvas: Canvas, who: Identity) -> None:
    """A cap over the skull, cut by the hairline; its parting makes the line lean."""

    def below_line(u, v):
        return (v - (who.hairline + u * u + who.parting * u)) / np.sqrt(1 + (2 * u + who.parting) ** 2)

    def strands(u, v):
        waves = 0.08 * np.sin(19 * u + 5 * v + 3 * who.parting)
        return who.hair * (1 + waves + 0.12 * who.light * u - 0.15 * (v + 0.8))

    canvas.oval(0, -0.1, 1.02 * who.hair_volume, (who.crown - 0.1) * who.hair_volume, strands, inside=below_line)


def _draw_lips(canvas: Canvas, who: Identity, m: Mouth) -> None:
    """Lips, the dark inside with upper teeth and, when wide, the tongue, or the line where closed lips meet."""
    top, bottom = m.centre - 0.5 * m.gap, m.centre + 0.5 * m.gap
    box = (-m.half_width - 0.05, top - m.upper - 0.08, m.half_width + 0.05, bottom + m.lower + 0.06)

    def outside(u, v):
        s = u / m.half_width
        slope = np.sqrt(1 + ((m.gap + m.upper + m.lower) * s / m.half_width) ** 2)
        return np.maximum(m.outer_top(s) - v, v - m.outer_bottom(s)) / slope

    def inside(u, v):
        s = u / m.inner_width
        return (np.abs(v - m.centre) - m.inner(s)) / np.sqrt(1 + (m.gap * s / m.inner_width) ** 2)

    def lit(u, v):
        return who.lips * np.where(v < m.centre, 0.88, 1.08 - 0.15 * np.abs(u))

    def behind_lip(u, v):
        return np.maximum(inside(u, v), np.abs(u) - 0.72 * m.inner_width)

    canvas.oval(0, box[3] + 0.02, 0.2, 0.05, 0.86 * who.skin, 0.7, soft=0.1)
    canvas.paint(box, outside, lit)
    canvas.paint(box, ellipse(0, m.centre, m.inner_width, 0.018), 0.76 * who.lips, max(0.0, 1 - 12 * m.gap))
    if m.gap > 0:
        canvas.paint(box, inside, INNER_MOUTH)
        canvas.paint(box, lambda u, v: v - (top + 0.2 * m.gap), TEETH, inside=behind_lip)
    if m.gap > 0.25:
        canvas.paint(box, ellipse(0, bottom, 0.62 * m.inner_width, 0.45 * (m.gap - 0.25)), TONGUE, inside=inside)
