"""Clips that are good enough, by the columns of quality.csv."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.quality.measures import Quality
from difftalk_pl.data.quality.table import TABLE, read_quality
from difftalk_pl.errors import UserError

Range = tuple[float | None, float | None]  # from and to, both included; None for no limit
NAMED = 3  # clips named in a message

log = logging.getLogger(__name__)


@dataclass
class Keep:
    """Which clips are good enough to be used: ranges of columns of quality.csv, written by the command report.

    A range is [from, to], both included, with null for no limit. A value that is not known is not within a range.

    Args:
        seconds: length.
        face_size: ear to ear, pixels of the source.
        yaw: head turned aside, degrees, median over frames.
        yaw_p95: the same, 95th percentile.
        sharpness: variance of the Laplacian of the face.
        motion: of the head, face sizes a second.
        level: of the sound, dB of full scale.
        speech: share of frames that are not quiet.
        clipping: share of samples at full scale.
        gaps: share of frames without a detected face.
        longest_gap: frames.
        faces: faces seen in the source.
        sync_offset: frames by which the sound has to be moved.
        sync_confidence: how sure SyncNet is.
    """

    seconds: Range | None = None
    face_size: Range | None = None
    yaw: Range | None = None
    yaw_p95: Range | None = None
    sharpness: Range | None = None
    motion: Range | None = None
    level: Range | None = None
    speech: Range | None = None
    clipping: Range | None = None
    gaps: Range | None = None
    longest_gap: Range | None = None
    faces: Range | None = None
    sync_offset: Range | None = None
    sync_confidence: Range | None = None

    def ranges(self) -> dict[str, Range]:
        """Those that are given, by column. Raises UserError for one that nothing can lie in."""
        given = {one.name: limits for one in fields(self) if (limits := getattr(self, one.name)) is not None}
        for column, (low, high) in given.items():
            if low is not None and high is not None and not low <= high:
                raise UserError(f"data.keep.{column} [{low:g}, {high:g}]: nothing lies between; the smaller one first")
        return given


def keep_good(root: Path, sides: Mapping[str, Sequence[Clip]], keep: Keep) -> dict[str, list[Clip]]:
    """The clips of every side whose values lie within all ranges, and in the log what every column takes out by itself.

    Sides are drawn before, so that they are the same with other ranges or none. Without ranges nothing is read.

    Args:
        sides: train, val, test.

    Raises:
        UserError: clips that are not measured, a column that is not known of any, or a side that loses all its clips.
    """
    if not (ranges := keep.ranges()):
        return {side: list(clips) for side, clips in sides.items()}
    every = [clip for clips in sides.values() for clip in clips]
    rows = _rows(root, every)
    for column, limits in ranges.items():
        out = [clip for clip in every if not _within(rows[clip.name], column, limits)]
        unknown = sum(getattr(rows[clip.name], column) is None for clip in out)
        log.info("keep %s %s: %s out%s", column, _told(limits), _amount(out), f", {unknown} unknown" if unknown else "")
        if unknown == len(every):
            raise UserError(f"{root / TABLE}: {column} is not known of any clip{_remedy(root, column)}")
    kept = {
        side: [clip for clip in clips if all(_within(rows[clip.name], *one) for one in ranges.items())]
        for side, clips in sides.items()
    }
    log.info("keep: %s of %s stay", _amount([clip for clips in kept.values() for clip in clips]), _amount(every))
    if empty := [side for side, clips in sides.items() if clips and not kept[side]]:
        raise UserError(f"data.keep: no clip of the {empty[0]} side lies within all ranges; widen them")
    return kept


def _rows(root: Path, clips: Sequence[Clip]) -> dict[str, Quality]:
    rows = read_quality(root)
    if missing := [clip.name for clip in clips if clip.name not in rows]:
        some = ", ".join(missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
        raise UserError(
            f"{root / TABLE}: {len(missing)} of {len(clips)} clips are not measured ({some}), and data.keep asks for "
            f"their quality; run report {root}"
        )
    return rows


def _within(row: Quality, column: str, limits: Range) -> bool:
    value, (low, high) = getattr(row, column), limits
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _told(limits: Range) -> str:
    return f"[{', '.join('…' if limit is None else f'{limit:g}' for limit in limits)}]"


def _amount(clips: Sequence[Clip]) -> str:
    return f"{len(clips)} clips ({sum(clip.frames for clip in clips) / FPS / 3600:.2f} h)"


def _remedy(root: Path, column: str) -> str:
    return f"; run report {root} --syncnet FILE" if column.startswith("sync") else "; leave it out of data.keep"
