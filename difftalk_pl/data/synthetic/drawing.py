"""Draws the puppet: the picture half of the synthetic clips.

Every shape is a signed distance in face units, turned into coverage over one pixel: smooth edges at any size, no
supersampling, and only the pixels around a shape are touched. Nothing outside mouth, chin and lower jaw depends on the
opening, and the inner mouth is far darker than anything near it: the opening can be read from dark pixels.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from difftalk_pl.data.synthetic.puppet import (
    BROW_V,
    EYE_U,
    NOSE_V,
    Colour,
    Identity,
    Pose,
    brow_line,
    eye_radii,
    jaw_drop,
    mouth_of,
    rise,
)

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (u, v) -> signed distance, negative inside
Box = tuple[float, float, float, float]  # u0, v0, u1, v1 in face units

INNER_MOUTH: Colour = (26.0, 10.0, 12.0)
TEETH: Colour = (228.0, 222.0, 208.0)
TONGUE: Colour = (168.0, 74.0, 78.0)


@lru_cache(maxsize=4)
def _pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the pixels as fractions of the side: x (1, S), y (S, 1)."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None], centres[:, None]


class Canvas:
    """A frame being painted, (3, S, S) float32, with the face's coordinates of every pixel."""

    def __init__(self, image: np.ndarray, who: Identity, pose: Pose):
        self.image, self.size = image, image.shape[-1]
        self.unit = who.face_width * pose.scale
        self.origin = np.array([pose.x, pose.y])
        self.c, self.s = float(np.cos(pose.angle)), float(np.sin(pose.angle))
        x, y = _pixels(self.size)
        dx, dy = (x - np.float32(pose.x)) / np.float32(self.unit), (y - np.float32(pose.y)) / np.float32(self.unit)
        self.u, self.v = self.c * dx + self.s * dy, self.c * dy - self.s * dx
        self.sharp = self.size * self.unit  # pixels in one face unit

    def crop(self, box: Box) -> tuple[slice, slice] | None:
        """Rows and columns around a box (u0, v0, u1, v1) of the face; None when it lies outside the frame."""
        u, v = np.array(box)[[0, 2, 0, 2]], np.array(box)[[1, 1, 3, 3]]
        x = (self.origin[0] + self.unit * (self.c * u - self.s * v)) * self.size
        y = (self.origin[1] + self.unit * (self.s * u + self.c * v)) * self.size
        x0, x1 = max(0, int(x.min()) - 1), min(self.size, int(x.max()) + 3)
        y0, y1 = max(0, int(y.min()) - 1), min(self.size, int(y.max()) + 3)
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def paint(
        self, box: Box, shape: Shape, colour, alpha: float = 1.0, soft: float = 0.0, inside: Shape | None = None
    ) -> None:
        """Lay a colour, (3,) or a function of (u, v), over a shape. soft: width of its edge in face units."""
        where = self.crop(box)
        if where is None:
            return
        u, v = self.u[where], self.v[where]
        sharp = 1 / max(soft, 1 / self.sharp)
        cover = np.clip(0.5 - shape(u, v) * sharp, 0, 1)
        if inside is not None:
            cover *= np.clip(0.5 - inside(u, v) * self.sharp, 0, 1)
        patch = self.image[:, where[0], where[1]]
        ink = colour(u, v) if callable(colour) else np.array(colour, np.float32)[:, None, None]
        patch += (alpha * cover) * (ink - patch)


def ellipse(cu: float, cv: float, ru: float, rv: float) -> Shape:
    """Signed distance to an ellipse, first order at its edge."""

    def distance(u, v):
        a, b = (u - cu) / ru, (v - cv) / rv
        reach = np.sqrt(a * a + b * b)
        slope = np.sqrt((a / ru) ** 2 + (b / rv) ** 2)
        return (reach - 1) * reach / np.maximum(slope, 1e-6)

    return distance


def between(top, bottom) -> Shape:
    """The strip under one curve and over another, both v as functions of u."""

    def distance(u, v):
        return np.maximum(top(u) - v, v - bottom(u))

    return distance


def box_of(cu: float, cv: float, ru: float, rv: float) -> Box:
    return cu - ru, cv - rv, cu + ru, cv + rv


def draw(who: Identity, pose: Pose, background: np.ndarray) -> np.ndarray:
    """One frame over a still background (3, S, S) float32: (S, S, 3) uint8."""
    canvas = Canvas(background.copy(), who, pose)
    _behind(canvas, who)
    _head(canvas, who, pose)
    for side in (-1.0, 1.0):
        _eye(canvas, who, pose, side)
    _nose(canvas, who)
    _hair(canvas, who)
    _lips(canvas, who, pose)
    return np.ascontiguousarray(np.clip(canvas.image + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def draw_background(who: Identity, size: int) -> np.ndarray:
    """Wall and clothes, which never move: (3, S, S) float32, 0-255."""
    x, y = _pixels(size)
    strength, stripes, direction = who.pattern
    wave = np.sin(2 * np.pi * stripes * (x * np.cos(direction) + y * np.sin(direction)))
    top, bottom = (np.array(colour, np.float32)[:, None, None] for colour in who.background)
    image = (top + (bottom - top) * (0.75 * y + 0.25 * x)) * (1 + strength * wave)
    unit = who.face_width
    shoulders = ellipse(0.5, 1.12, 1.75 * unit, 0.30)(x, y)
    cover = np.clip(0.5 - shoulders * size, 0, 1)
    cloth = np.array(who.cloth, np.float32)[:, None, None] * (1.1 - 0.35 * np.abs(x - 0.5 - 0.15 * who.light))
    return (image + cover * (cloth - image)).astype(np.float32)


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, factor * part) for part in colour)
    return red, green, blue


def _behind(canvas: Canvas, who: Identity) -> None:
    if who.hair_length > 0:
        bottom = 0.7 + who.hair_length
        radii = 1.12 * who.hair_volume, 0.5 * (bottom + 1.1)
        middle = 0.5 * (bottom - 1.1)
        canvas.paint(box_of(0, middle, *radii), ellipse(0, middle, *radii), shade(who.hair, 0.75))
    canvas.paint(box_of(0, 1.5, 0.6, 0.85), ellipse(0, 1.5, 0.52, 0.82), shade(who.skin, 0.74))
    for side in (-1.0, 1.0):
        canvas.paint(
            box_of(side * 0.98, 0.18, 0.2, 0.3),
            ellipse(side * 0.98, 0.18, 0.13 * who.ears, 0.24),
            shade(who.skin, 0.86),
        )


def face_shape(who: Identity, pose: Pose) -> Shape:
    """The outline through the jaw's landmarks; above the eyes an ellipse of the crown's height."""

    def distance(u, v):
        still = rise(v, who, pose)
        height = np.where(still > 0, who.chin, who.crown).astype(np.float32)
        a, b = u * (1 + who.taper * np.maximum(still, 0) / who.chin), still / height
        reach = np.sqrt(a * a + b * b)
        return (reach - 1) * reach / np.maximum(np.sqrt(a * a + (b / height) ** 2), 1e-6)

    return distance


def _head(canvas: Canvas, who: Identity, pose: Pose) -> None:
    """Face with a soft light from one side, darker towards its edge; rosy cheeks; a beard along the jaw."""
    skin = np.array(who.skin, np.float32)[:, None, None]

    def lit(u, v):
        return skin * (1.06 + 0.1 * who.light * u - 0.05 * v - 0.16 * np.minimum(u * u, 1.0))

    outline = face_shape(who, pose)
    box = (-1.05, -who.crown - 0.05, 1.05, who.chin + jaw_drop(who, pose) + 0.05)
    canvas.paint(box, outline, lit)
    rose = (0.96 * who.skin[0] + 9, 0.86 * who.skin[1], 0.86 * who.skin[2])
    for side in (-1.0, 1.0):
        canvas.paint(box_of(side * 0.55, 0.5, 0.4, 0.34), ellipse(side * 0.55, 0.5, 0.2, 0.16), rose, 0.6, soft=0.3)
    if who.beard > 0:
        fur = tuple(0.4 * hair + 0.6 * part for hair, part in zip(who.hair, who.skin, strict=True))

        def along_jaw(u, v):
            return np.maximum(-0.16 - outline(u, v), 0.75 * who.chin - rise(v, who, pose) - 0.25 * u * u)

        canvas.paint((-1, 0.3, 1, box[3]), along_jaw, fur, who.beard, soft=0.14, inside=outline)


def _eye(canvas: Canvas, who: Identity, pose: Pose, side: float) -> None:
    """Eyeball, iris, pupil, a glint, the upper lid's line, brow, and glasses where they are worn."""
    u, (ru, rv) = side * EYE_U * who.eye_distance, eye_radii(who, pose)
    socket, ball = box_of(u, 0, ru + 0.1, 0.25), ellipse(u, 0, ru, max(rv, 0.012))
    canvas.paint(box_of(u, -0.02, 0.36, 0.3), ellipse(u, -0.02, 0.24, 0.14), shade(who.skin, 0.84), 0.7, soft=0.16)
    canvas.paint(socket, ball, (238.0, 236.0, 232.0) if pose.lids > 0.15 else shade(who.skin, 0.6))
    if pose.lids > 0.15:
        iris = u + pose.gaze[0], pose.gaze[1]
        canvas.paint(box_of(*iris, 0.14, 0.14), ellipse(*iris, 0.092, 0.092), who.eyes, inside=ball)
        canvas.paint(box_of(*iris, 0.1, 0.1), ellipse(*iris, 0.042, 0.042), (18.0, 16.0, 18.0), inside=ball)
        glint = iris[0] - 0.03, iris[1] - 0.03
        canvas.paint(box_of(*glint, 0.06, 0.06), ellipse(*glint, 0.02, 0.02), (250.0, 250.0, 250.0), inside=ball)

    def lid(a):
        return -rv * np.sqrt(np.maximum(1 - ((a - u) / (ru + 0.02)) ** 2, 0))

    lash = shade(who.skin, 0.42)
    canvas.paint(
        (u - ru - 0.02, -0.2, u + ru + 0.02, 0.05), between(lambda a: lid(a) - 0.03, lambda a: lid(a) + 0.01), lash
    )

    def brow(a):
        return brow_line((a - u) / 0.27 * -side, who)

    thick = 0.05 * who.brow
    strip = between(lambda a: brow(a) - thick, lambda a: brow(a) + thick)
    ends = ellipse(u, BROW_V, 0.3, 0.4)
    canvas.paint(box_of(u, BROW_V, 0.32, 0.3), strip, shade(who.hair, 0.8), 0.9, inside=ends)
    if who.glasses > 0:
        lens = ellipse(u, 0.03, 0.33, 0.27)
        canvas.paint(box_of(u, 0.03, 0.4, 0.35), lambda a, b: np.abs(lens(a, b)) - 0.022, (40.0, 38.0, 42.0), 0.9)
        canvas.paint(box_of(0.2 * side * 0.4, 0, 0.1, 0.06), ellipse(0, 0, 0.16, 0.022), (40.0, 38.0, 42.0), 0.9)


def _nose(canvas: Canvas, who: Identity) -> None:
    tip, wide = NOSE_V * who.nose, 0.17 * who.nose_width
    away = -0.06 if who.light > 0 else 0.06
    canvas.paint(
        (away - 0.15, 0, away + 0.15, tip), ellipse(away, 0.5 * tip, 0.045, 0.42 * tip), shade(who.skin, 0.82), 0.7, 0.1
    )
    canvas.paint(
        box_of(0, tip, wide + 0.15, 0.25), ellipse(0, tip + 0.03, wide, 0.085), shade(who.skin, 0.86), 0.9, 0.08
    )
    canvas.paint(box_of(0, tip, wide, 0.2), ellipse(-away, tip - 0.04, 0.06, 0.05), shade(who.skin, 1.14), 0.8, 0.08)
    for side in (-1.0, 1.0):
        at = side * 0.55 * wide, tip + 0.055
        canvas.paint(box_of(*at, 0.1, 0.08), ellipse(*at, 0.055, 0.03), shade(who.skin, 0.55))


def _hair(canvas: Canvas, who: Identity) -> None:
    """A cap over the skull, cut by the hairline; its parting makes the line lean."""
    volume = who.hair_volume
    skull = ellipse(0, -0.1, 1.02 * volume, (who.crown - 0.1) * volume)

    def below_line(u, v):
        line = who.hairline + u * u + who.parting * u
        return (v - line) / np.sqrt(1 + (2 * u + who.parting) ** 2)

    def strands(u, v):
        waves = 1 + 0.08 * np.sin(19 * u + 5 * v + 3 * who.parting) + 0.12 * who.light * u - 0.15 * (v + 0.8)
        return np.array(who.hair, np.float32)[:, None, None] * waves

    box = (-1.05 * volume, -who.crown * volume - 0.1, 1.05 * volume, 0.5)
    canvas.paint(box, skull, strands, inside=below_line)


def _lips(canvas: Canvas, who: Identity, pose: Pose) -> None:
    """Lips, the dark inside with upper teeth and, when wide, the tongue, or the line where closed lips meet."""
    m = mouth_of(who, pose)
    box = (
        -m.half_width - 0.05,
        m.centre - 0.5 * m.gap - m.upper - 0.08,
        m.half_width + 0.05,
        m.centre + 0.5 * m.gap + m.lower + 0.06,
    )
    canvas.paint(
        box_of(0, box[3] + 0.08, 0.4, 0.2), ellipse(0, box[3] + 0.02, 0.2, 0.05), shade(who.skin, 0.86), 0.7, soft=0.1
    )

    def outside(u, v):
        s = u / m.half_width
        slope = np.sqrt(1 + ((m.gap + m.upper + m.lower) * s / m.half_width) ** 2)
        return np.maximum(m.outer_top(s) - v, v - m.outer_bottom(s)) / slope

    def inside(u, v):
        s = u / m.inner_width
        return (np.abs(v - m.centre) - m.inner(s)) / np.sqrt(1 + (m.gap * s / m.inner_width) ** 2)

    def lit(u, v):
        return np.array(who.lips, np.float32)[:, None, None] * np.where(v < m.centre, 0.88, 1.08 - 0.15 * np.abs(u))

    canvas.paint(box, outside, lit)
    seam = ellipse(0, m.centre, m.inner_width, 0.018)
    canvas.paint(box, seam, shade(who.lips, 0.76), max(0.0, 1 - 12 * m.gap))
    if m.gap <= 0:
        return
    canvas.paint(box, inside, INNER_MOUTH)
    top, bottom = m.centre - 0.5 * m.gap, m.centre + 0.5 * m.gap
    edge = top + 0.2 * m.gap
    canvas.paint(
        box,
        lambda u, v: v - edge,
        TEETH,
        inside=lambda u, v: np.maximum(inside(u, v), np.abs(u) - 0.72 * m.inner_width),
    )
    if m.gap > 0.25:
        high = 0.45 * (m.gap - 0.25)
        canvas.paint(box, ellipse(0, bottom, 0.62 * m.inner_width, high), TONGUE, inside=inside)
