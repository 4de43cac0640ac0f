"""Pictures of an evaluation: the offset curve of SyncNet, differences of adjacent frames, use of the codebook."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RESOLUTION = 100  # pixels an inch


def offset_curves(curves: Mapping[str, Sequence[float]], title: str) -> np.ndarray:
    """SyncNet's mean distance at every shift, one line a method, its best shift marked.

    Args:
        curves: 2 S + 1 distances each; place k is speech moved by k - S frames.

    Returns:
        (H, W, 3) uint8.
    """
    figure = Figure(figsize=(7, 4), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    for method, curve in curves.items():
        largest = len(curve) // 2
        offsets = largest - np.arange(len(curve))  # as the scores count: negative where the speech comes too late
        best = int(np.argmin(curve))
        line, *_ = axes.plot(offsets, curve, label=f"{method}: {offsets[best]:+d}")
        axes.plot(offsets[best], curve[best], "o", color=line.get_color())
    axes.set(xlabel="offset, frames", ylabel="mean distance", title=title)
    axes.axvline(0, color="grey", linewidth=0.5)
    axes.legend()
    return _pixels(figure)


def difference_maps(maps: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """Mean absolute difference of adjacent frames, one map a method, on one scale. Paper, figure 5.

    Args:
        maps: (H, W) each, in steps of 8 bit.
    """
    figure = Figure(figsize=(2.6 * len(maps) + 0.8, 3.2), dpi=RESOLUTION, layout="constrained")
    rows = figure.subplots(1, len(maps), squeeze=False)[0]
    top = max(float(np.quantile(one, 0.999)) for one in maps.values()) or 1.0
    for axes, (method, one) in zip(rows, maps.items()):
        shown = axes.imshow(one, cmap="inferno", vmin=0, vmax=top)
        axes.set(title=f"{method}\nmean {one.mean():.2f}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=list(rows), shrink=0.8)
    figure.suptitle(title, fontsize="medium")
    return _pixels(figure)


def codebook_use(counts: np.ndarray, title: str) -> np.ndarray:
    """How often each code was used, most used first. counts: (codes,)."""
    figure = Figure(figsize=(7, 4), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(counts) + 1), np.sort(counts)[::-1])
    share = counts / max(counts.sum(), 1)
    perplexity = np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())
    axes.set(xlabel="codes, most used first", ylabel="cells", yscale="symlog")
    axes.set_title(f"{title}: {(counts > 0).mean():.0%} of {len(counts)} codes, perplexity {perplexity:.0f}")
    return _pixels(figure)


def _pixels(figure: Figure) -> np.ndarray:
    """Drawn without a display, and without touching the style or the backend of whoever imports this."""
    with matplotlib.rc_context({"font.size": 9}):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
