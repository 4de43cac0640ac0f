"""The command `scenes`: videos of many shots -> a list of clips for `prepare`, a line for each shot."""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from difftalk_pl.data.clips import write_json
from difftalk_pl.data.files.job_bars import JobBars
from difftalk_pl.data.files.pool import Report, run_jobs
from difftalk_pl.data.sources.clip_list import Piece, write_clip_list
from difftalk_pl.data.sources.layouts import LIST_SUFFIX, IdentityRule, NameRule, find_pieces
from difftalk_pl.data.sources.naming import part_name
from difftalk_pl.data.sources.shots import THRESHOLDS, DetectorName, Look, Shots, described, find_shots
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.progress import console

log = logging.getLogger(__name__)
WRITTEN = "list.json"  # in the memory: what the list was when it was written
ROUNDING = 1e-6  # s


class Job(NamedTuple):
    video: Path
    look: Look


def scenes(
    sources: list[Path],
    out: Path,
    min_seconds: float = 3,
    detector: DetectorName = "adaptive",
    threshold: float | None = None,
    workers: int = 1,
    identity: IdentityRule = "auto",
    names: NameRule = "auto",
) -> None:
    """Find the hard cuts of videos and write a list of their shots, which prepare takes in place of videos.

    A shot is called VIDEO_s000, VIDEO_s001 …; numbers count the short ones, too. All shots of a video get the video's
    identity: they may show different people, but nobody of them is then on two sides of a split. Edit the column where
    you know better. Dissolves and slow fades are not found.

    What was found in a video is kept beside OUT, in a hidden folder, so that a second run reads only what is new or
    changed. A video that cannot be read is reported and left out.

    Args:
        out: The list, a .csv; written anew for these sources, unless it has been edited since.
        min_seconds: Shorter shots are left out.
        detector: adaptive compares a change with the changes around it, which finds jump cuts of one person, too, and
            bears camera movement; content compares it with a fixed value.
        threshold: Larger finds fewer cuts; 3 by default for adaptive (times the changes around), 27 for content (mean
            change of a pixel in hue, saturation and brightness).
        workers: Processes; each reads one video at a time.
        identity: Who is in a video: its name, its folder, the folder below SOURCE (top), its name without the numbers
            at its end (prefix), or auto, which knows the names of HDTF, VoxCeleb, MEAD and LRS.
        names: What a video is called: its stem, its path below SOURCE, or auto: the path where the stem is a number.
    """
    look = Look(detector, THRESHOLDS[detector] if threshold is None else threshold)
    _check_usage(sources, out, min_seconds, look, workers)
    memory = _Memory(out, look)
    memory.check_list()
    videos = find_pieces(sources, identity, names)
    out.parent.mkdir(parents=True, exist_ok=True)
    found, started = memory.of(piece.video for piece in videos), time.monotonic()
    new = [Job(piece.video, look) for piece in videos if piece.video not in found]
    failed = _find(new, workers, memory, found)
    shots = [shot for piece in videos if piece.video in found for shot in _shots_of(piece, found[piece.video])]
    kept = [piece for piece, seconds in shots if seconds >= min_seconds - ROUNDING]
    console.print(_summary(len(found), len(found) - len(new) + failed, failed, shots, kept, min_seconds, started))
    if not kept:
        what = "could be read" if not found else f"has a shot of {min_seconds:g} s"
        raise UserError(f"{', '.join(map(str, sources))}: no video {what}; no list was written")
    memory.write_list(kept)
    log.info("%s: %d clips; next: prepare %s --out DATASET", out, len(kept), out)


def find_job(job: Job, report: Report) -> Shots | str:
    """The shots of a video, or why there are none. Runs in a worker."""
    try:
        return find_shots(job.video, job.look, report)
    except UserError as error:
        return str(error).removeprefix(f"{job.video}: ")


def _check_usage(sources: list[Path], out: Path, min_seconds: float, look: Look, workers: int) -> None:
    if out.suffix.lower() != LIST_SUFFIX:
        raise UsageError(f"--out {out}: expected a name that ends in {LIST_SUFFIX}, by which prepare knows a list")
    if lists := [source for source in sources if source.suffix.lower() == LIST_SUFFIX]:
        raise UsageError(f"{lists[0]}: expected videos or folders of them, not a list")
    if not 0 <= min_seconds < float("inf") or not 0 < look.threshold < float("inf") or workers < 1:
        raise UsageError(
            f"min_seconds={min_seconds:g}, threshold={look.threshold:g}, workers={workers}: expected at least 0 s, "
            "more than 0 and at least 1"
        )


def _find(jobs: Sequence[Job], workers: int, memory: "_Memory", found: dict[Path, Shots]) -> int:
    """Look through videos, add what is found; says how many failed."""
    failed = 0
    with JobBars("videos", len(jobs)) as bars:
        for event in run_jobs(find_job, jobs, workers):
            video = jobs[event.job].video
            bars.show(event, video.name)
            if event.kind == "done" and isinstance(event.value, Shots):
                found[video] = event.value
                memory.keep(video, event.value)
                bars.advance()
            elif event.is_end:
                failed += 1
                bars.advance(str(video), "left out", event.trouble or event.value)
    return failed


def _shots_of(video: Piece, shots: Shots) -> Iterable[tuple[Piece, float]]:
    """Every shot and how long it is, s. The first begins with the clock, the last one ends with the video."""
    starts = [0.0, *(cut for cut in shots.cuts if cut > 0)]
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], None])):
        piece = Piece(part_name(video.name, f"_s{number:03d}"), video.video, start, stop, video.identity)
        yield piece, (shots.end if stop is None else stop) - start


def _summary(
    videos: int,
    known: int,
    failed: int,
    shots: list[tuple[Piece, float]],
    kept: list[Piece],
    min_seconds: float,
    started: float,
) -> Table:
    table = Table("scenes", "count", "of which", box=None, pad_edge=False)
    seconds = sum(length for _, length in shots)
    table.add_row("videos", str(videos), f"{known} known from before" if known else "")
    if failed:
        table.add_row("left out", str(failed), "the lines above say why")
    table.add_row("shots", str(len(shots)), f"{seconds:.1f} s of video")
    if short := len(shots) - len(kept):
        lost = sum(length for piece, length in shots if length < min_seconds - ROUNDING)
        table.add_row("too short", str(short), f"under {min_seconds:g} s, {lost:.1f} s together")
    table.add_row("clips", str(len(kept)), "")
    table.add_row("time", f"{time.monotonic() - started:.1f} s", "")
    return table


class _Memory:
    """A hidden folder beside the list: a file a video with what was found in it, for one way to look."""

    def __init__(self, out: Path, look: Look) -> None:
        self.out, self.folder = out, out.with_name(f".{out.name}.shots")
        self.how = described(look)

    def of(self, videos: Iterable[Path]) -> dict[Path, Shots]:
        """What is known of videos that have not changed since."""
        known = {}
        for video in videos:
            content = _read(self._path(video))
            if content is not None and content.get("of") == self._of(video):
                known[video] = Shots(content["cuts"], content["end"])
        return known

    def keep(self, video: Path, shots: Shots) -> None:
        self.folder.mkdir(exist_ok=True)
        write_json(self._path(video), {"of": self._of(video), **shots._asdict()})

    def check_list(self) -> None:
        """A list that somebody has written or edited is not overwritten."""
        if self.out.exists() and (_read(self.folder / WRITTEN) or {}).get("sha256") != _hash(self.out):
            raise UserError(
                f"{self.out}: has been edited, or was not written by scenes; give another --out, or remove it"
            )

    def write_list(self, pieces: list[Piece]) -> None:
        write_clip_list(self.out, pieces)
        self.folder.mkdir(exist_ok=True)
        write_json(self.folder / WRITTEN, {"sha256": _hash(self.out)})

    def _path(self, video: Path) -> Path:
        return self.folder / f"{sha256(str(video).encode()).hexdigest()[:24]}.json"

    def _of(self, video: Path) -> dict[str, Any] | None:
        try:
            there = video.stat()
        except OSError:
            return None
        return {"video": str(video), "bytes": there.st_size, "mtime_ns": there.st_mtime_ns, "how": self.how}


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is nothing, or nothing that can be read: it is found again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _hash(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
