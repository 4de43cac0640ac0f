"""An invisible mark in the pixels of generated videos, and its reader. `docs/watermark.md` has method and figures.

Spread spectrum (Cox et al., 1997) in the luma of a grid of cells that is stretched over the frame, whatever its size:
each of 48 bits is a pattern of +-1 over cells of its own. How far each pattern is raised depends on what the picture
itself says of its bit, as the reader would see it (improved spread spectrum, Malvar and Florencio, 2003).
"""

import hashlib
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import convolve1d, uniform_filter

from difftalk_pl.errors import UserError

KEY = b"difftalk_pl watermark 1"  # what patterns are drawn from: another key is another mark
FIXED, NAMING = 24, 24  # bits that say `made by difftalk_pl`; bits that name the model
BITS = FIXED + NAMING
DIGITS = NAMING // 4  # hexadecimal
GRID = 64  # cells along each side of a frame
FINE = 4  # samples along each side of a cell, to see texture
SOFT = 2.0  # grey levels of a high-passed cell above which it counts ever less
TARGET = 0.5
WEAKEST, STRONGEST = 0.5, 3.0
FLAT, TEXTURED = 0.7, 2.0
LIMIT = 1.5
UPDATE = 4
MEMORY = 24
THRESHOLD = 6.0
# Share that a cell's value has in the mean over its own area and over a neighbour's, after bicubic interpolation
SPREAD = (0.09375, 0.8125, 0.09375)


class _Pattern(NamedTuple):
    bit: np.ndarray
    chip: np.ndarray
    said: np.ndarray


@cache
def _pattern() -> _Pattern:
    cells = GRID * GRID
    drawn = hashlib.shake_256(KEY).digest(cells * 9 + FIXED)
    order = np.argsort(np.frombuffer(drawn, "<u8", cells), kind="stable")
    bit = np.empty(cells, int)
    bit[order] = np.arange(cells) % BITS
    chip = np.where(np.frombuffer(drawn, np.uint8, cells, cells * 8) & 1, 1.0, -1.0)
    said = np.where(np.frombuffer(drawn, np.uint8, FIXED, cells * 9) & 1, 1.0, -1.0)
    return _Pattern(bit, chip, said)


def _fine(frame):
    side = GRID * FINE
    luma = Image.fromarray(np.ascontiguousarray(frame)).convert("L").convert("F")
    return np.asarray(luma.resize((side, side), Image.Resampling.BOX))


def _cells(fine):
    return fine.reshape(GRID, FINE, GRID, FINE).mean((1, 3))


K1 = (-0.5, 1.0, -0.5)


def _high_pass(cells):
    return convolve1d(convolve1d(cells, K1, 0, mode="nearest"), K1, 1, mode="nearest")


def _soft(x):
    return x / np.sqrt(x * x + SOFT * SOFT)


def _tolerance(fine, cells):
    down, right = np.abs(np.diff(fine, axis=0, append=fine[-1:])), np.abs(np.diff(fine, axis=1, append=fine[:, -1:]))
    texture = _cells(np.minimum(down + right, 16.0))
    light = np.clip(np.minimum(cells / 48, (255 - cells) / 24), 0.2, 1)
    return light * np.clip(FLAT + 0.2 * texture, FLAT, TEXTURED)


class Watermark:
    def __init__(self, model: str) -> None:
        named = int(model[:DIGITS], 16)
        own = np.array([1.0 if named >> k & 1 else -1.0 for k in reversed(range(NAMING))])
        p = _pattern()
        self.signs = np.concatenate([p.said, own])
        self.wanted = p.chip * self.signs[p.bit]
        self.frames = 0
        self.change = np.zeros((GRID, GRID))

    def mark(self, frame):
        if self.frames % UPDATE == 0:
            self._update(frame)
        self.frames += 1
        out = np.clip(frame, self.low, self.high)
        out += self.delta
        return out

    def _update(self, frame):
        fine = _fine(frame)
        cells = _cells(fine)
        tol = _tolerance(fine, cells)
        if self.frames == 0:
            self.mean, self.tol = cells, tol
        share = UPDATE / min(self.frames + UPDATE, MEMORY)
        self.mean = self.mean + share * (cells - self.mean)
        self.tol = self.tol + share * (tol - self.tol)
        self._render(self._raise(), frame.shape)

    def _raise(self):
        p = _pattern()
        host = _high_pass(self.mean)
        tol2 = self.tol**2
        count = np.bincount(p.bit, minlength=BITS)
        bit = p.bit.reshape(GRID, GRID)
        wanted = self.wanted.reshape(GRID, GRID)
        for _ in range(3 if self.frames else 20):
            seen = host + _high_pass(_spread(self.change))
            agreement = np.bincount(p.bit, self.wanted * _soft(seen).ravel(), BITS) / count
            lack = np.maximum(TARGET - agreement, 0)
            push = wanted * lack[bit] * SOFT**3 / (seen**2 + SOFT**2) ** 1.5
            self.change = self.change * (1 - LEAK) + RATE * tol2 * _spread(_high_pass(push))
            most = CAP * self.tol
            self.change = np.clip(self.change, -most, most)
            rms = math.sqrt(np.mean(self.change**2))
            self.change *= min(1, LIMIT / max(rms * 0.75, 1e-6))
        self.lack = lack
        return self.change

    def _render(self, change, shape):
        h, w = shape[:2]
        d = np.asarray(Image.fromarray(change.astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC))
        d = np.rint(d).astype(np.int8)
        d = np.repeat(d[..., None], 3, 2)
        self.low = np.maximum(-d, 0).astype(np.uint8)
        self.high = 255 - np.maximum(d, 0).astype(np.uint8)
        self.delta = d.view(np.uint8)


LEAK, RATE, CAP = 0.02, 2.0, 2.0


def _spread(change):
    return convolve1d(convolve1d(change, SPREAD, 0, mode="nearest"), SPREAD, 1, mode="nearest")


def read(frames):
    total, n = 0, 0
    for f in frames:
        total = total + _cells(_fine(f))
        n += 1
    p = _pattern()
    v = _soft(_high_pass(total / n)).ravel()
    r = np.bincount(p.bit, p.chip * v, BITS)
    zb = r / np.sqrt(np.bincount(p.bit, v * v, BITS) + 1e-9)
    fixed = p.bit < FIXED
    z = (p.chip * v * p.said[np.minimum(p.bit, FIXED - 1)])[fixed].sum() / np.sqrt((v[fixed] ** 2).sum())
    return z, zb
