"""The command `curves`: what runs have logged, as one picture."""

import csv
import fnmatch
import logging
import math
from pathlib import Path
from typing import NamedTuple

from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

COLUMNS = 3
PANEL = (4.2, 2.7)  # inches
FEWEST = 50  # points that are smoothed at all
EXACT = ("learning_rate",)  # no noise in it: smoothing would only delay it
NO_METRIC = ("step", "epoch")


class Curve(NamedTuple):
    """Finite values of one metric over the steps of a run."""

    steps: list[int]
    values: list[float]


def curves(
    runs: list[Path],
    out: Path = Path("curves.png"),
    only: str = "*",
    smooth: float = 0.9,
    log_scale: bool = False,
) -> None:
    """Draw the logged metrics of runs over their steps, a panel for each metric and a line for each run.

    A resumed run is one line. Where there are many points, the raw values stand pale behind the smoothed ones.

    Args:
        runs: folders that fit has written into.
        out: the PNG to write.
        only: metrics to draw, such as "val/*"; * stands for anything.
        smooth: share of the past in the moving average, from 0 to less than 1; 0 draws the raw values.
        log_scale: logarithmic values.
    """
    if not 0 <= smooth < 1:
        raise UserError(f"smooth {smooth}: expected 0 or more and less than 1, such as 0.9")
    found = {str(run): read_run(run) for run in runs}
    names = sorted({name for metrics in found.values() for name in metrics})
    names = [name for name in names if fnmatch.fnmatchcase(name, only)]
    if not names:
        there = ", ".join(sorted({name for metrics in found.values() for name in metrics})) or "nothing"
        raise UserError(f"no metric of {', '.join(found)} matches {only!r}; logged: {there}")
    figure = _draw(names, found, smooth, log_scale)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="png", dpi=150)
    log.info("%s: %s of %s", out, _counted(len(names), "metric"), _counted(len(found), "run"))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def read_run(run: Path) -> dict[str, Curve]:
    """All metrics of a run. Raises UserError where it has logged none.

    Every start of a run writes a file of its own, under its number; folders of other names are not looked at. Where it
    has gone back to an older checkpoint, what the later file says of a step holds.
    """
    numbered = {path.parent.name.removeprefix("version_"): path for path in run.glob("metrics/version_*/metrics.csv")}
    files = [numbered[number] for number in sorted(filter(str.isdecimal, numbered), key=int)]
    if not files:
        raise UserError(f"{run}: no metrics/version_*/metrics.csv; give the folder of a run (--run of fit)")
    joined: dict[str, Curve] = {}
    for path in files:
        for name, later in _read_file(path).items():
            earlier = joined.get(name, Curve([], []))
            kept = [(step, value) for step, value in zip(*earlier) if step < later.steps[0]]
            joined[name] = Curve(*([pair[part] for pair in kept] + later[part] for part in (0, 1)))  # type: ignore[arg-type, operator]
    return joined


def _read_file(path: Path) -> dict[str, Curve]:
    """Metrics of one metrics.csv. A last line without its end is left out: what a killed process wrote last may be half
    a number."""
    found: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.readlines()
    whole = lines if lines and lines[-1].endswith("\n") else lines[:-1]
    for row in csv.DictReader(whole):
        for name, text in row.items():
            if name in NO_METRIC or not text or not row.get("step"):
                continue
            value = float(text)
            if math.isfinite(value):
                found.setdefault(name, {})[int(row["step"])] = value
    return {name: Curve(list(points), list(points.values())) for name, points in found.items()}


def smoothed(values: list[float], share: float) -> list[float]:
    """Exponential moving average without the pull of its start: the first value is itself."""
    result, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = share * mean + (1 - share) * value
        weight = share * weight + (1 - share)
        result.append(mean / weight)
    return result


def _draw(names: list[str], found: dict[str, dict[str, Curve]], smooth: float, log_scale: bool):
    """A matplotlib Figure: no display and no state outside of it."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(columns * PANEL[0], rows * PANEL[1] + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for name, panel in zip(names, panels):
        for number, metrics in enumerate(found.values()):
            if name in metrics:
                _draw_line(panel, metrics[name], f"C{number % 10}", 0.0 if name.endswith(EXACT) else smooth)
        panel.set_title(name, fontsize=10)
        panel.set_yscale("log" if log_scale else "linear")
        panel.grid(alpha=0.25)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in list(panels):
        panel.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    lines = [panel.plot([], [], f"C{number % 10}")[0] for number in range(len(found))]
    figure.legend(
        lines, list(found), loc="outside upper center", ncols=min(len(found), COLUMNS), fontsize=9, frameon=False
    )
    return figure


def _draw_line(panel, curve: Curve, colour: str, smooth: float) -> None:
    many = len(curve.steps) >= FEWEST and smooth > 0
    if many:
        panel.plot(*curve, color=colour, alpha=0.2, linewidth=0.8)
    values = smoothed(curve.values, smooth) if many else curve.values
    panel.plot(curve.steps, values, color=colour, linewidth=1.4, marker="o" if len(values) == 1 else None, markersize=4)
