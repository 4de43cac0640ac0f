"""Draw a face: the picture half of the synthetic clips.

Every shape is the signed distance of each pixel in face units, negative inside, turned into coverage over one pixel:
smooth edges at any size. Nothing outside mouth, chin and lower jaw depends on the opening, and the inner mouth is far
darker than anything near it.
"""

import numpy as np

from difftalk_pl.data.synthetic import geometry
from difftalk_pl.data.synthetic.geometry import BROW_V, EYE_U, NOSE_V, Identity, Mouth, Pose, rgb

INNER_MOUTH, TEETH, TONGUE = rgb(26, 10, 12), rgb(228, 222, 208), rgb(168, 74, 78)
EYE_WHITE, PUPIL, GLINT, FRAMES = rgb(238, 236, 232), rgb(18, 16, 18), rgb(250, 250, 250), rgb(40, 38, 42)
FAR = 0.4  # beyond the edge of an ellipse, face units


class Canvas:
    """A frame being painted, (3, S, S) float32, with the face's coordinates u and v of every pixel, (S, S)."""

    def __init__(self, image: np.ndarray, who: Identity, pose: Pose) -> None:
        self.image, self.size, self.unit, self.pose = image, image.shape[-1], who.face_width * pose.scale, pose
        self.sharp = self.size * self.unit  # pixels in one face unit
        self.c, self.s = float(np.cos(pose.angle)), float(np.sin(pose.angle))
        x, y = _pixels(self.size)
        dx, dy = (x - pose.x) / self.unit, (y - pose.y) / self.unit
        self.u, self.v = self.c * dx + self.s * dy, self.c * dy - self.s * dx

    def _around(self, box) -> tuple:
        """Return the index of the pixels around a box of the face, (u0, v0, u1, v1)."""
        u, v = np.array(box)[[0, 2, 0, 2]], np.array(box)[[1, 1, 3, 3]]
        x = (self.pose.x + self.unit * (self.c * u - self.s * v)) * self.size
        y = (self.pose.y + self.unit * (self.s * u + self.c * v)) * self.size
        return (..., *(slice(max(0, int(at.min()) - 1), max(0, int(at.max()) + 3)) for at in (y, x)))

    def paint(self, box, shape: np.ndarray, colour: np.ndarray, alpha=1.0, soft=0.0, inside=None) -> None:
        """Lay a colour, (3, 1, 1) or (3, S, S), over a shape in a box, cut to another shape.

        soft: width of its edge in face units.
        """
        here = self._around(box)
        cover = np.clip(0.5 - shape[here] * (1 / max(soft, 1 / self.sharp)), 0, 1)
        if inside is not None:
            cover *= np.clip(0.5 - inside[here] * self.sharp, 0, 1)
        patch = self.image[here]
        patch += (alpha * cover) * (np.broadcast_to(colour, self.image.shape)[here] - patch)

    def ellipse(self, u: float, v: float, ru: float, rv: float) -> np.ndarray:
        """Return the signed distance to an ellipse; infinite far from it, which saves time."""
        here = self._around((u - ru - FAR, v - rv - FAR, u + ru + FAR, v + rv + FAR))
        distance = np.full_like(self.u, np.inf)
        distance[here] = _ellipse(self.u[here] - u, self.v[here] - v, ru, rv)
        return distance

    def oval(self, u: float, v: float, ru: float, rv: float, colour, alpha=1.0, soft=0.0, inside=None) -> None:
        """Lay a colour over an ellipse."""
        du, dv = ru + soft + 0.06, rv + soft + 0.06
        self.paint((u - du, v - dv, u + du, v + dv), self.ellipse(u, v, ru, rv), colour, alpha, soft, inside)


def _pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of the pixels as fractions of the side: x (1, S), y (S, 1)."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None], centres[:, None]


def _ellipse(u: np.ndarray, v: np.ndarray, ru: float, rv: float) -> np.ndarray:
    """Return the signed distance to an ellipse around the origin, first order at its edge."""
    a, b = u / ru, v / rv
    reach = np.sqrt(a * a + b * b)
    return (reach - 1) * reach / np.maximum(np.sqrt((a / ru) ** 2 + (b / rv) ** 2), 1e-6)


def draw_background(who: Identity, size: int) -> np.ndarray:
    """Draw wall and clothes, which never move: (3, S, S) float32, 0-255."""
    (x, y), angle = _pixels(size), who.stripe_direction
    wave = np.sin(2 * np.pi * who.stripes * (x * np.cos(angle) + y * np.sin(angle)))
    wall = who.wall_top + (who.wall_bottom - who.wall_top) * (0.75 * y + 0.25 * x)
    image = wall * (1 + who.stripe_strength * wave)
    cover = np.clip(0.5 - _ellipse(x - 0.5, y - 1.12, 1.75 * who.face_width, 0.30) * size, 0, 1)
    cloth = who.cloth * (1.1 - 0.35 * np.abs(x - 0.5 - 0.15 * who.light))
    return (image + cover * (cloth - image)).astype(np.float32)


def draw(who: Identity, pose: Pose, background: np.ndarray) -> np.ndarray:
    """Draw one frame over a still background (3, S, S) float32: (S, S, 3) uint8."""
    canvas, mouth = Canvas(background.copy(), who, pose), Mouth(who, pose)
    _draw_head(canvas, who, mouth)
    for side in (-1.0, 1.0):
        _draw_eye(canvas, who, pose, side)
    _draw_nose_and_hair(canvas, who)
    _draw_lips(canvas, who, mouth)
    return np.ascontiguousarray(np.clip(canvas.image + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _draw_head(canvas: Canvas, who: Identity, mouth: Mouth) -> None:
    """Long hair, neck, ears; the face with a soft light from one side; rosy cheeks; a beard along the jaw."""
    if who.hair_length > 0:
        bottom = 0.7 + who.hair_length
        canvas.oval(0, 0.5 * (bottom - 1.1), 1.12 * who.hair_volume, 0.5 * (bottom + 1.1), 0.75 * who.hair)
    canvas.oval(0, 1.5, 0.52, 0.82, 0.74 * who.skin)
    for side in (-0.98, 0.98):
        canvas.oval(side, 0.18, 0.13 * who.ears, 0.24, 0.86 * who.skin)
    u, v, hinge = canvas.u, canvas.v, geometry.STILL_JAW * who.chin
    stretch = 1 + mouth.jaw_drop / (who.chin - hinge)
    closed = np.where(v > hinge, hinge + (v - hinge) / stretch, v)  # which v of the closed face lies there now
    height = np.where(closed > 0, who.chin, who.crown).astype(np.float32)
    a, b = u * (1 + who.taper * np.maximum(closed, 0) / who.chin), closed / height
    reach = np.sqrt(a * a + b * b)  # through the jaw's landmarks; above the eyes an ellipse of the crown's height
    outline = (reach - 1) * reach / np.maximum(np.sqrt(a * a + (b / height) ** 2), 1e-6)
    light, bottom = 1.06 + 0.1 * who.light * u - 0.05 * v - 0.16 * np.minimum(u * u, 1.0), who.chin + mouth.jaw_drop
    canvas.paint((-1.05, -who.crown - 0.05, 1.05, bottom + 0.05), outline, who.skin * light)
    for side in (-0.55, 0.55):
        canvas.oval(side, 0.5, 0.2, 0.16, who.skin * rgb(0.96, 0.86, 0.86) + rgb(9, 0, 0), 0.6, soft=0.3)
    if who.beard > 0:
        along_jaw = np.maximum(-0.16 - outline, 0.75 * who.chin - closed - 0.25 * u * u)
        fur = 0.4 * who.hair + 0.6 * who.skin
        canvas.paint((-1, 0.3, 1, bottom + 0.05), along_jaw, fur, who.beard, soft=0.14, inside=outline)


def _draw_eye(canvas: Canvas, who: Identity, pose: Pose, side: float) -> None:
    """Eyeball, iris, pupil, a glint, the upper lid's line, brow, and glasses."""
    u, (ru, rv), is_open = side * EYE_U * who.eye_distance, geometry.eye_radii(who, pose), pose.lids > 0.15
    ball, x, y = canvas.ellipse(u, 0, ru, max(rv, 0.012)), u + pose.gaze_u, pose.gaze_v
    canvas.oval(u, -0.02, 0.24, 0.14, 0.84 * who.skin, 0.7, soft=0.16)
    canvas.oval(u, 0, ru, max(rv, 0.012), EYE_WHITE if is_open else 0.6 * who.skin)
    if is_open:
        canvas.oval(x, y, 0.092, 0.092, who.eyes, inside=ball)
        canvas.oval(x, y, 0.042, 0.042, PUPIL, inside=ball)
        canvas.oval(x - 0.03, y - 0.03, 0.02, 0.02, GLINT, inside=ball)
    lid = canvas.v + rv * np.sqrt(np.maximum(1 - ((canvas.u - u) / (ru + 0.02)) ** 2, 0))
    canvas.paint((u - ru - 0.02, -0.2, u + ru + 0.02, 0.05), np.abs(lid + 0.01) - 0.02, 0.42 * who.skin)
    brow = np.abs(canvas.v - geometry.brow_line((canvas.u - u) / 0.27 * -side, who)) - 0.05 * who.brow
    box, ends = (u - 0.32, BROW_V - 0.3, u + 0.32, BROW_V + 0.3), canvas.ellipse(u, BROW_V, 0.3, 0.4)
    canvas.paint(box, brow, 0.8 * who.hair, 0.9, inside=ends)
    if who.glasses < 0.25:
        lens, bridge = np.abs(canvas.ellipse(u, 0.03, 0.33, 0.27)) - 0.022, canvas.ellipse(0, 0, 0.16, 0.022)
        canvas.paint((u - 0.4, -0.32, u + 0.4, 0.38), lens, FRAMES, 0.9)
        canvas.paint((0.08 * side - 0.1, -0.06, 0.08 * side + 0.1, 0.06), bridge, FRAMES, 0.9)


def _draw_nose_and_hair(canvas: Canvas, who: Identity) -> None:
    """The bridge's shadow, the tip with its light, the nostrils; a cap of hair, whose line the parting tilts."""
    tip, wide, away = NOSE_V * who.nose, 0.17 * who.nose_width, -0.06 if who.light > 0 else 0.06
    bridge, light = canvas.ellipse(away, 0.5 * tip, 0.045, 0.42 * tip), canvas.ellipse(-away, tip - 0.04, 0.06, 0.05)
    canvas.paint((away - 0.15, 0, away + 0.15, tip), bridge, 0.82 * who.skin, 0.7, soft=0.1)
    canvas.oval(0, tip + 0.03, wide, 0.085, 0.86 * who.skin, 0.9, soft=0.08)
    canvas.paint((-wide, tip - 0.2, wide, tip + 0.2), light, np.minimum(1.14 * who.skin, 255), 0.8, soft=0.08)
    for side in (-0.55, 0.55):
        canvas.oval(side * wide, tip + 0.055, 0.055, 0.03, 0.55 * who.skin)
    u, v = canvas.u, canvas.v
    below_line = (v - (who.hairline + u * u + who.parting * u)) / np.sqrt(1 + (2 * u + who.parting) ** 2)
    waves = 1 + 0.08 * np.sin(19 * u + 5 * v + 3 * who.parting) + 0.12 * who.light * u - 0.15 * (v + 0.8)
    width, height = 1.02 * who.hair_volume, (who.crown - 0.1) * who.hair_volume
    canvas.oval(0, -0.1, width, height, who.hair * waves, inside=below_line)


def _draw_lips(canvas: Canvas, who: Identity, m: Mouth) -> None:
    """Lips, the dark inside with upper teeth and, when wide, the tongue, or the line where closed lips meet."""
    u, v, top, bottom = canvas.u, canvas.v, m.centre - 0.5 * m.gap, m.centre + 0.5 * m.gap
    box = (-m.half_width - 0.05, top - m.upper - 0.08, m.half_width + 0.05, bottom + m.lower + 0.06)
    s = u / m.half_width
    slope = np.sqrt(1 + ((m.gap + m.upper + m.lower) * s / m.half_width) ** 2)
    outer = np.maximum(m.outer_top(s) - v, v - m.outer_bottom(s)) / slope
    s = u / m.inner_width
    inner = (np.abs(v - m.centre) - m.inner(s)) / np.sqrt(1 + (m.gap * s / m.inner_width) ** 2)
    line = canvas.ellipse(0, m.centre, m.inner_width, 0.018)
    canvas.oval(0, box[3] + 0.02, 0.2, 0.05, 0.86 * who.skin, 0.7, soft=0.1)
    canvas.paint(box, outer, who.lips * np.where(v < m.centre, 0.88, 1.08 - 0.15 * np.abs(u)).astype(np.float32))
    canvas.paint(box, line, 0.76 * who.lips, max(0.0, 1 - 12 * m.gap))
    if m.gap > 0:
        canvas.paint(box, inner, INNER_MOUTH)
        behind_lip = np.maximum(inner, np.abs(u) - 0.72 * m.inner_width)
        canvas.paint(box, v - (top + 0.2 * m.gap), TEETH, inside=behind_lip)
    if m.gap > 0.25:
        tongue = canvas.ellipse(0, bottom, 0.62 * m.inner_width, 0.45 * (m.gap - 0.25))
        canvas.paint(box, tongue, TONGUE, inside=inner)
