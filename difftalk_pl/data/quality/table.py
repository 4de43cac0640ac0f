"""ROOT/quality.csv: what was measured of a dataset's clips, in worker processes, each clip once."""

import csv
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.files.pool import Event, Report, run_jobs
from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.data.quality.measures import MEASURES, Quality, measure, stamp
from difftalk_pl.data.quality.pictures import has_pictures, write_pictures
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.progress import progress_bar

TABLE = "quality.csv"
FLUSH = 20.0  # s between two writings while clips are measured


class Spread(NamedTuple):
    """What a column holds: clips with a value and without, percentiles 0, 5, 50, 95 and 100 of the values."""

    known: int
    unknown: int
    percentiles: tuple[float, ...]


def read_quality(root: Path) -> dict[str, Quality]:
    """The rows of quality.csv by clip; empty where there is no file.

    Raises:
        UserError: it is of another version, or damaged.
    """
    path = root / TABLE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != Quality._fields:
                raise ValueError("its columns are others")
            return {row["name"]: _row(row) for row in reader}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it and run report {root} again") from error


def write_quality(root: Path, rows: Iterable[Quality]) -> None:
    """Write quality.csv, sorted by name, in one step."""
    with replacing(root / TABLE) as file:
        writer = csv.writer(file)
        writer.writerow(Quality._fields)
        writer.writerows([_cell(value) for value in row] for row in sorted(rows, key=lambda row: row.name))


def measure_dataset(root: Path, workers: int = 1) -> dict[str, Quality]:
    """Measure the usable clips that are new or have changed, draw their pictures, and keep quality.csv with the rest.

    A clip that cannot be measured has a row that says why. What is done stays done when this is stopped.

    Returns:
        the rows of all usable clips, by name.
    """
    clips = open_clips(root)
    before = read_quality(root)
    todo = [clip for clip in clips if not _is_measured(clip, before.get(clip.name))]
    waiting = {clip.name for clip in todo}
    rows = {clip.name: before[clip.name] for clip in clips if clip.name not in waiting}
    written = time.monotonic()
    try:
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=len(clips), completed=len(rows))
            for event in run_jobs(run_job, todo, workers):
                if (row := _result(event, todo[event.job])) is not None:
                    rows[row.name] = row
                    bar.advance(task)
                if time.monotonic() - written > FLUSH:
                    write_quality(root, rows.values())
                    written = time.monotonic()
    finally:
        write_quality(root, rows.values())
    return rows


def run_job(clip: Clip, report: Report) -> Quality:
    """Runs in a worker. The pictures come first, so that a row says that they are there."""
    before = stamp(clip)
    try:
        write_pictures(clip)
        return measure(clip)
    except (UserError, OSError, ValueError, LookupError) as error:
        return Quality(clip.name, reason=_one_line(error), stamp=before)


def spread(rows: Iterable[Quality], column: str) -> Spread:
    values = [getattr(row, column) for row in rows]
    known = np.array([value for value in values if value is not None], np.float64)
    percentiles = np.percentile(known, (0, 5, 50, 95, 100)) if len(known) else ()
    return Spread(len(known), len(values) - len(known), tuple(float(value) for value in percentiles))


def hours(rows: Iterable[Quality]) -> float:
    return sum(row.seconds or 0 for row in rows) / 3600


def _is_measured(clip: Clip, row: Quality | None) -> bool:
    return row is not None and row.stamp == stamp(clip) and (bool(row.reason) or has_pictures(clip))


def _result(event: Event, clip: Clip) -> Quality | None:
    """The row that an event brings, if it ends a job. One without a stamp is tried again the next time."""
    if event.kind == "done":
        return event.value
    return Quality(clip.name, reason=event.trouble) if event.is_end else None


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{'' if isinstance(error, (UserError, ValueError)) else f'{type(error).__name__}: '}{reason_of(error)}"


def _row(row: Mapping[str, str]) -> Quality:
    values = {name: (float(text) if text else None) if name in MEASURES else text for name, text in row.items()}
    return Quality(**values)  # type: ignore[arg-type]


def _cell(value: float | str | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float | int) else value
