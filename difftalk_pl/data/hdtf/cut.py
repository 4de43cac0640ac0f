"""The command `hdtf cut`: HDTF's videos to its clips, as the published tables say."""

import csv
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.files.job_bars import JobBars
from difftalk_pl.data.files.pool import Event, run_jobs
from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.data.hdtf.clip import Cut, CutJob, CutRow, known_row, run_cut
from difftalk_pl.data.hdtf.files import clip_file, video_file
from difftalk_pl.data.hdtf.tables import SOURCES, HDTFClip, HDTFVideo, read_annotations
from difftalk_pl.data.sources.clip_list import Piece, write_clip_list
from difftalk_pl.data.sources.people import person_of
from difftalk_pl.errors import UsageError, UserError

log = logging.getLogger(__name__)

CLAIMS = ".claims"
POLL = 2.0  # seconds between two looks at what others work on


def hdtf_cut(
    annotations: Path,
    folder: Path,
    out: Path,
    workers: int = 1,
    size: int | None = 512,
    only: list[str] | str | None = None,
) -> None:
    """Cut HDTF's videos to its clips: OUT/RD_Radio1_000.mp4, square, 25 fps, with the sound of its seconds.

    A clip is cut to the published window where a face fills it, scaled where the video has another resolution than
    the tables say; else to a square about the face. OUT/cut.csv says which and why, OUT/clips.csv lists the clips with
    their people for prepare. Run the same command again to go on after an interruption or when more videos are there:
    clips are cut again only if their video has changed. Several of these commands, on any number of machines, may
    share OUT.

    Videos that are not there are counted and no error; a clip is refused where its video is damaged, too short or shows
    no face. Exit code 1 means that no clip is there, or that a process broke down and the same command tries again.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        folder: The videos, as hdtf download puts them: NAME.mp4 or another container, and in clips/ those that came
            ready cut, which are used where the whole video is not there.
        out: Where the clips go; made, or added to.
        workers: Processes; each cuts one clip at a time.
        size: Side of the clips in pixels, as published 512; null keeps each window's own.
        only: Names of sources (RD, WDA, WRA) or videos; several as [RD,KatieHill].
    """
    if workers < 1 or (size is not None and (size < 16 or size % 2)):
        raise UsageError(f"workers={workers}, size={size}: at least 1, and null or an even number of pixels are needed")
    videos = read_annotations(annotations)
    wanted = _chosen(videos, only)
    jobs, unclear = find_jobs(videos, folder, out, size)
    if not jobs and not unclear:
        raise UserError(f"{folder}: none of HDTF's {len(videos)} videos is there; run hdtf download first")
    out.mkdir(parents=True, exist_ok=True)
    claims, started = Claims(out / CLAIMS), time.monotonic()
    cuts, broken = _work([job for job in jobs if job.clip.name in wanted], claims, workers)
    for reason in sorted({reason for name, reason in unclear.items() if name in wanted}):
        log.warning("not cut: %s", reason)
    broken += sorted(wanted & set(unclear))
    with claims.turn("clips.csv"):
        rows = [known_row(out, clip) or _absent(clip, jobs, unclear) for video in videos for clip in video.clips]
        write_lists(out, rows)
    _show(rows, cuts, time.monotonic() - started)
    if not any(row.status == "ok" for row in rows):
        raise UserError(f"{out}: no clip could be cut; the reasons are in {out / 'cut.csv'}")
    if broken:
        raise UserError(
            f"{len(broken)} clips are not done ({', '.join(broken[:8])}); the same command tries them again"
        )


def find_jobs(
    videos: Sequence[HDTFVideo], folder: Path, out: Path, size: int | None
) -> tuple[list[CutJob], dict[str, str]]:
    """The clips whose video, or own file, is there; and by clip, why it is not clear which file that is."""
    jobs, unclear = [], {}
    for video in videos:
        for clip in video.clips:
            try:
                whole = video_file(folder, video)
                source = whole or clip_file(folder, clip)
            except UserError as error:
                unclear[clip.name] = str(error)
                continue
            if source is not None:
                jobs.append(CutJob(clip, video.lines, source, out, size, ready=whole is None))
    return jobs, unclear


def _absent(clip: HDTFClip, jobs: Sequence[CutJob], unclear: Mapping[str, str]) -> CutRow:
    here = any(job.clip == clip for job in jobs)
    reason = unclear.get(clip.name) or ("not cut yet" if here else "its video is not there")
    return CutRow(clip.name, person_of(clip.source, clip.video), "missing", reason=reason)


def write_lists(out: Path, rows: Sequence[CutRow]) -> None:
    """cut.csv of all clips; clips.csv of those that are there, as `prepare` reads it."""
    with replacing(out / "cut.csv") as file:
        writer = csv.writer(file)
        writer.writerow(CutRow._fields)
        writer.writerows(rows)
    there = [row for row in rows if row.status == "ok"]
    write_clip_list(
        out / "clips.csv", [Piece(row.name, out / f"{row.name}.mp4", identity=row.identity) for row in there]
    )


def _work(jobs: Sequence[CutJob], claims: Claims, workers: int) -> tuple[list[Cut], list[str]]:
    """Cut what nobody cuts, then what others leave undone; what was cut, and the names of those that broke down."""
    cuts: list[Cut] = []
    broken, waiting = [], list(jobs)
    with JobBars("clips", len(jobs)) as bars:
        while waiting:
            busy = []
            for event in run_jobs(partial(run_cut, claims), waiting, workers):
                job = waiting[event.job]
                bars.show(event, job.clip.name)
                if not event.is_end:
                    continue
                if event.kind == "done" and event.value.row is None:
                    busy.append(job)
                    continue
                bars.advance(job.clip.name, *_complaint(event))
                if event.trouble or event.value.action == "failed":
                    broken.append(job.clip.name)
                else:
                    cuts.append(event.value)
            if busy:
                time.sleep(POLL)
            waiting = busy
    return cuts, broken


def _complaint(event: Event) -> tuple[str, str]:
    """What has become of a clip that is not there, and why; both empty where it is."""
    if event.kind == "failed":
        log.error("unexpected error\n%s", event.value)
    if event.trouble:
        return "failed", event.trouble
    row = event.value.row
    return (event.value.action, row.reason) if row.status == "refused" else ("", "")


def _chosen(videos: Sequence[HDTFVideo], only: list[str] | str | None) -> set[str]:
    """The names of the clips that are asked for."""
    names = {only} if isinstance(only, str) else set(only or ())
    if unknown := names - {video.name for video in videos} - set(SOURCES):
        raise UsageError(f"only: {', '.join(sorted(unknown))}: no source ({', '.join(SOURCES)}) and no video's name")
    return {clip.name for video in videos if not names or names & {video.name, video.source} for clip in video.clips}


def _show(rows: Sequence[CutRow], cuts: Sequence[Cut], seconds: float) -> None:
    """What is there, by source and by how it was cropped, and what this run did."""
    table = Table("clips", *SOURCES, "together", box=None, pad_edge=False)
    kinds = ("window", "scaled", "landmarks", "whole", "refused", "missing")
    counts = Counter((row.crop or row.status, row.name.partition("_")[0]) for row in rows)
    for kind in kinds:
        numbers = [counts[kind, source] for source in SOURCES]
        if any(numbers):
            table.add_row(kind, *map(str, numbers), str(sum(numbers)))
    done = Counter(cut.action for cut in cuts)
    made = sum(int(cut.row.frames or 0) for cut in cuts if cut.action == "cut" and cut.row) / FPS
    out = Console()
    out.print(table)
    out.print(
        ", ".join(f"{count} {action}" for action, count in done.items()) or "nothing to do",
        f"in {seconds:.1f} s; {made:.1f} s of video, {made / max(seconds, 1e-9):.1f} a second" if made else "",
        soft_wrap=True,
    )
