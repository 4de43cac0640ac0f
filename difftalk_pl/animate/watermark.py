"""An invisible mark in the pixels of generated videos, and its reader. `docs/watermark.md` has figures and limits.

Spread spectrum (Cox et al., 1997) in the luma of a grid of cells that is stretched over the frame, whatever its size.
Each of the three bytes that name the model owns a third of the cells and is written as one of 256 words of 128 signs,
scrambled by a constant key. As in improved spread spectrum (Malvar and Florencio, 2003) the marker looks at the picture
as the reader will, and spends nothing where the words stand out already or where an edge would drown them.
"""

import hashlib
import math
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.linalg import hadamard
from scipy.ndimage import convolve1d

from difftalk_pl.errors import UserError
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import TAG, read_tags

KEY = b"difftalk_pl watermark 1"  # another key is another mark
BYTES, WORD = 3, 128  # what names a model, and the signs that write one byte
SAMPLES = 256  # means of luma along each side, from which texture and cells are made

COARSE, FINE = 64, 128  # cells along each side
RMS = {COARSE: 1.5, FINE: 0.9}  # most of the change, grey levels before rounding: about 45 and 49 dB
SMALL = 480  # pixels of the shorter side below which frames get the coarse grid
SOFT = 2.0  # grey levels: high-passed cells beyond count ever less
AGREEMENT = 0.4  # mean soft sign that a byte is raised to, if tolerance allows
FLAT, TEXTURED, PER_TEXTURE = 0.5, 2.0, 0.4  # tolerance, grey levels: of flat cells, at most, a level of texture
EDGE = 4.0  # grey levels between neighbouring samples that count at most, so that one edge is no texture
DARK, BRIGHT, DIM = 48, 231, 0.2  # tolerance falls outside of these, to this share: there is no room and it shows
MOST = 2.5  # the change of a cell, in tolerances

EVERY = 8  # frames that share one change
MEMORY = 25  # frames over which a change follows the picture
FIRST, NEXT = 20, 4  # steps of gradient ascent at the first frame, and at each later change
RATE, LEAK = 2.0, 0.02
SLEW = 0.5  # grey levels by which a cell's change may move at once

FALSE_ALARM = 1e-6  # probability up to which a mark counts as found
SURE = 1.0  # standard deviations by which each byte has to stand out before the next best

HIGH_PASS = np.array([-0.5, 1.0, -0.5])  # along both axes: straight edges vanish, and pictures have little left
HALF = hadamard(WORD).astype(np.float32)
WORDS = np.concatenate([HALF, -HALF])  # (256, 128) +-1, biorthogonal code: any two differ in 64 places or in all
SPREAD = np.array([0.0807, 0.8386, 0.0807])  # what rendering leaves of a cell in its neighbours: the bicubic kernel
SEEN = np.convolve(HIGH_PASS, SPREAD)


class Reading(NamedTuple):
    """What a reader finds in frames."""

    model: str | None  # six hexadecimal digits; None without a mark
    sure: bool  # whether each of its bytes stands out; else some digits may be wrong
    z: float  # correlation of the best words with all cells, standard deviations


class Watermark:
    """Mark the frames of one video as they come with the first six hexadecimal digits of a model's hash.

    The change follows the picture slowly, so that nothing flickers.
    """

    def __init__(self, model: str) -> None:
        self._word, self._frames = np.frombuffer(bytes.fromhex(model[: 2 * BYTES]), np.uint8), 0

    def mark(self, frame: np.ndarray) -> np.ndarray:
        """Return a marked copy: the same change for red, green and blue, (H, W, 3) uint8. All frames have one size."""
        if self._frames % EVERY == 0:
            self._follow(frame)
        self._frames += 1
        marked = np.maximum(frame, self._lowest)
        np.minimum(marked, self._highest, out=marked)  # now the sum of bytes, modulo 256, cannot wrap
        marked += self._bytes
        return marked

    def _follow(self, frame: np.ndarray) -> None:
        """Fit the change to the picture, all at once at the first frame and slowly at later ones."""
        if self._frames == 0:
            self.grid = COARSE if min(frame.shape[:2]) < SMALL else FINE
            self._byte, place, chip = _pattern(self.grid)
            self._wanted = (chip * WORDS[self._word][self._byte, place]).reshape(self.grid, self.grid)
            self._change, self._cells, self._tolerance = np.zeros((3, self.grid, self.grid), np.float32)
        samples, share = _samples(frame), EVERY / min(self._frames + EVERY, MEMORY)
        self._cells += share * (_cells(samples, self.grid) - self._cells)
        self._tolerance += share * (_tolerance(samples, self.grid) - self._tolerance)
        self._raise(NEXT if self._frames else FIRST)
        smooth = Image.fromarray(self._change).resize((frame.shape[1], frame.shape[0]), Image.Resampling.BICUBIC)
        grey = np.rint(np.asarray(smooth)).astype(np.int8)
        change = np.ascontiguousarray(np.broadcast_to(grey[..., None], frame.shape))
        self._lowest = (-np.minimum(change, 0)).view(np.uint8)
        self._highest = 255 - np.maximum(change, 0).view(np.uint8)
        self._bytes = change.view(np.uint8)

    def _raise(self, steps: int) -> None:
        """Gradient ascent of the agreement that the reader will find, where a byte lacks it, within the tolerance."""
        host, squared, most = _filter(self._cells, HIGH_PASS), self._tolerance**2, MOST * self._tolerance
        change = self._change
        for _ in range(steps):
            seen = host + _filter(change, SEEN)
            soft = seen / np.sqrt(seen**2 + SOFT**2)
            found = np.bincount(self._byte, (self._wanted * soft).ravel(), BYTES)
            lack = np.maximum(AGREEMENT - found * BYTES / soft.size, 0).astype(np.float32)
            slope = self._wanted * lack[self._byte].reshape(soft.shape) * (1 - soft**2) ** 1.5
            change = np.clip((1 - LEAK) * change + RATE * squared * _filter(slope, SEEN), -most, most)
            rendered = 0.75 * math.sqrt(float(np.mean(change**2))) + 1e-9  # interpolation takes about a quarter
            change *= min(1.0, RMS[self.grid] / rendered)
        self._change = change if steps == FIRST else self._change + np.clip(change - self._change, -SLEW, SLEW)


def read_mark(frames: Iterable[np.ndarray]) -> Reading:
    """Look for the mark of any model in the frames of one video, (H, W, 3) uint8, averaged over time.

    For words chosen before, z of frames without a mark is at most Gaussian over the draw of the key (Hoeffding, 1963):
    P(z > t) <= exp(-t^2 / 2). The bound on false alarms is this times the number of words and grids that are tried.
    """
    total, count = np.zeros((SAMPLES, SAMPLES)), 0
    for frame in frames:
        total += _samples(frame)
        count += 1
    return max((_decode(total / max(count, 1), grid) for grid in RMS), key=lambda reading: reading.z)


def _decode(samples: np.ndarray, grid: int) -> Reading:
    """The best word of each byte in the mean luma of a video."""
    byte, place, chip = _pattern(grid)
    seen = _filter(_cells(samples, grid), HIGH_PASS).ravel()
    soft = chip * seen / np.sqrt(seen**2 + SOFT**2)
    scores = np.bincount(byte * WORD + place, soft, BYTES * WORD).reshape(BYTES, WORD) @ WORDS.T
    energy, (second, first) = float((soft**2).sum()) + 1e-9, np.sort(scores, axis=1)[:, -2:].T
    z, margin = float(first.sum() / math.sqrt(energy)), float((first - second).min() / math.sqrt(energy / BYTES))
    if len(RMS) * math.exp(BYTES * math.log(len(WORDS)) - z**2 / 2) > FALSE_ALARM:
        return Reading(None, False, z)
    return Reading(bytes(scores.argmax(axis=1).tolist()).hex(), margin >= SURE, z)


@cache
def _pattern(grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every cell, row by row, (grid * grid,): the byte that it writes, its place in the word, the sign that
    scrambles it. Drawn by SHAKE-256, whose output no library version changes."""
    cells = grid * grid
    drawn = hashlib.shake_256(KEY + bytes([grid])).digest(9 * cells)
    rank = np.empty(cells, int)
    rank[np.argsort(np.frombuffer(drawn, "<u8", cells), kind="stable")] = np.arange(cells)
    chip = np.where(np.frombuffer(drawn, np.uint8, cells, 8 * cells) & 1, 1, -1).astype(np.float32)
    return rank % BYTES, rank // BYTES % WORD, chip


def _samples(frame: np.ndarray) -> np.ndarray:
    """Luma of BT.601, averaged to (SAMPLES, SAMPLES) float32."""
    luma = Image.fromarray(np.ascontiguousarray(frame)).convert("L").convert("F")
    return np.asarray(luma.resize((SAMPLES, SAMPLES), Image.Resampling.BOX))


def _cells(samples: np.ndarray, grid: int) -> np.ndarray:
    """Means over cells, (grid, grid)."""
    side = SAMPLES // grid
    return samples.reshape(grid, side, grid, side).mean(axis=(1, 3))


def _tolerance(samples: np.ndarray, grid: int) -> np.ndarray:
    """Grey levels of a cell that stay unseen: few where it is flat, dark or white, more in texture. A guess by eye."""
    steps = [np.abs(np.diff(samples, axis=axis, append=samples.take([-1], axis))) for axis in (0, 1)]
    texture = _cells(np.minimum(steps[0] + steps[1], EDGE), grid)
    cells = _cells(samples, grid)
    light = np.clip(np.minimum(cells / DARK, (255 - cells) / (255 - BRIGHT)), DIM, 1)
    return light * np.clip(FLAT + PER_TEXTURE * texture, FLAT, TEXTURED)


def _filter(cells: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return convolve1d(convolve1d(cells, kernel, 0, mode="nearest"), kernel, 1, mode="nearest")


def watermark(videos: list[Path], seconds: float = 10.0) -> None:
    """Print for each video whether it carries the invisible watermark, of which model, and what its metadata say.

    A video without one is no error. It is a note and no proof: who knows this code can remove or forge it.

    Args:
        videos: files to read.
        seconds: how much of each video is read, from its start; more helps where a video is small or much compressed.
    """
    failed = 0
    for path in videos:
        try:
            model, sure, z = read_mark(read_frames(path, count=max(1, round(25 * seconds))))
            marked = f"marked, model {model}{'' if sure else ' (unsure)'}" if model else "not marked"
            line = f"{path}: {marked}, z {z:.1f}; metadata: {read_tags(path).get(TAG, 'none of difftalk_pl')}"
        except UserError as error:
            line, failed = str(error), failed + 1
        sys.stdout.write(f"{line}\n")
    if failed:
        raise UserError(f"{failed} of {len(videos)} videos could not be read; the lines above say why")
