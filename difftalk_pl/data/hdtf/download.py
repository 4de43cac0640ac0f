"""The commands `hdtf status` and `hdtf download`: HDTF's videos into one folder, as far as they are still to be had."""

import importlib.util
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from difftalk_pl.data.files.job_bars import JobBars
from difftalk_pl.data.files.pool import Event, run_jobs
from difftalk_pl.data.hdtf.files import CLIPS, names_in
from difftalk_pl.data.hdtf.ledger import Ledger, Record
from difftalk_pl.data.hdtf.local import take_local
from difftalk_pl.data.hdtf.tables import SOURCES, HDTFVideo, read_annotations, untimed
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.progress import progress_bar

if TYPE_CHECKING:
    from difftalk_pl.data.hdtf.fetching import Job, Patience

log = logging.getLogger(__name__)

POLL = 2.0  # seconds between two looks at what other processes have in work
NAMED = 8  # videos that a line names


def hdtf_status(annotations: Path, folder: Path) -> None:
    """Say which of HDTF's videos are here, gone, failed or still to come.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        folder: Where hdtf download puts the videos.
    """
    _show(read_annotations(annotations), folder, annotations)


def hdtf_download(
    annotations: Path,
    folder: Path,
    from_local: list[Path] | Path | None = None,
    only: list[str] | str | None = None,
    workers: int = 1,
    retries: int = 4,
    retry_gone: bool = False,
    height: Literal["best", "published"] | int = "best",
    cookies: Path | None = None,
) -> None:
    """Download HDTF's videos, best picture and sound, or link those that are here already.

    Run the same command again to go on after an interruption, and to try again what failed. Several of these commands,
    on any number of machines, may share the folder. Exit code 0 means that everything that can be had is there: videos
    that their site calls removed or private are counted as gone and not asked for again. If some failed, it is 1.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        folder: Where the videos go, as NAME.mp4 or another container.
        from_local: Download nothing; link the originals and ready-cut clips that these folders hold under any usual
            name: RD_Radio1.mp4, Radio1.mkv, the ID of its address; RD_Radio1_000.mp4, Radio1_0.mp4.
        only: Names of sources (RD, WDA, WRA) or videos; several as [RD,KatieHill].
        workers: Videos to download at the same time.
        retries: Further tries in this run, after longer and longer waits, of what network or server refused.
        retry_gone: Ask again for videos that were gone.
        height: Lines of the picture at most; published takes each video's from the tables, so that the published crops
            fit as they are.
        cookies: A file of cookies for the site, where it wants a signed-in browser.
    """
    if workers < 1 or retries < 0 or (isinstance(height, int) and height < 1):
        raise UsageError(f"workers={workers}, retries={retries}, height={height}: at least 1, 0 and 1 are needed")
    videos = _chosen(read_annotations(annotations), only)
    if from_local is not None:
        with progress_bar() as bar:
            taken = take_local(from_local, videos, folder, bar)
        log.info("%s", taken)
        _show(videos, folder)
        if taken.useless:
            raise UserError(f"{taken.useless} files could not be taken, for the reasons above")
        return
    if importlib.util.find_spec("yt_dlp") is None:
        raise UserError("yt-dlp is not installed; run: pip install 'difftalk_pl[download]', or give --from-local DIR")
    from difftalk_pl.data.hdtf.fetching import Patience

    download_all(videos, folder, workers, Patience(retries + 1), retry_gone, height, cookies)
    records = _show(videos, folder)
    if failed := [record for record in records if record.state in ("failed", "pending")]:
        raise UserError(
            f"{folder}: {len(failed)} of {len(videos)} videos are not there, for the reasons above; the same command "
            "tries them again"
        )


def download_all(
    videos: Sequence[HDTFVideo],
    folder: Path,
    workers: int,
    patience: "Patience",
    retry_gone: bool = False,
    height: Literal["best", "published"] | int = "best",
    cookies: Path | None = None,
) -> None:
    """Until each of them is done, gone or failed, here or by another process that is at it."""
    from difftalk_pl.data.hdtf.fetching import Job, fetch_video, read_cookies

    ledger, ready, by_hand = Ledger(folder), names_in(folder / CLIPS), names_in(folder)
    sent = None if cookies is None else read_cookies(cookies)
    waiting = []
    for video in videos:
        before = ledger.read(video.name)
        wanted = before.state in ("pending", "failed") or (
            before.state == "gone" and (retry_gone or video.name in by_hand)
        )
        if wanted and not _is_cut(video, ready):
            lines = video.lines if height == "published" else None if height == "best" else height
            waiting.append(Job(video, folder, before, patience, lines, sent))
    with JobBars("videos", len(waiting)) as bars:
        while waiting:
            busy = []
            for event in run_jobs(fetch_video, waiting, min(workers, len(waiting))):
                job = waiting[event.job]
                record = _outcome(event, job, ledger)
                bars.show(event, f"{job.video.name}, MB")
                if record is not None:
                    bars.advance(job.video.name, record.state if record.state != "done" else "", record.reason)
                if event.kind == "done" and record is None:
                    busy.append(job)
            waiting = busy
            while waiting and {job.video.name for job in waiting} <= ledger.claims.busy():
                time.sleep(POLL)


def _outcome(event: Event, job: "Job", ledger: Ledger) -> Record | None:
    """What became of a video, if this event ends its job; a crash is its own failure."""
    if event.kind == "failed":
        log.error("%s: unexpected error\n%s", job.video.name, event.value)
    if event.trouble:
        return ledger.note(Record(job.video.name, "failed", event.trouble, job.before.tries + 1))
    return event.value if event.is_end else None


def _chosen(videos: Sequence[HDTFVideo], only: list[str] | str | None) -> list[HDTFVideo]:
    names = {only} if isinstance(only, str) else set(only or ())
    if unknown := names - {video.name for video in videos} - set(SOURCES):
        raise UsageError(f"only: {', '.join(sorted(unknown))}: no source ({', '.join(SOURCES)}) and no video's name")
    return [video for video in videos if not names or names & {video.name, video.source}]


def _is_cut(video: HDTFVideo, ready: Collection[str]) -> bool:
    """Whether all its clips came ready cut, so that nobody needs it."""
    return all(clip.name in ready for clip in video.clips)


def _show(videos: Sequence[HDTFVideo], folder: Path, annotations: Path | None = None) -> list[Record]:
    """The table and what it does not tell; the records of videos whose clips are not all here ready cut."""
    ledger, out, ready = Ledger(folder), Console(), names_in(folder / CLIPS)
    records = {video.name: ledger.read(video.name) for video in videos}
    cut = [video.name for video in videos if records[video.name].state != "done" and _is_cut(video, ready)]
    out.print(_table(videos, records, folder, ready))
    for line in _remarks(records, cut, folder, ledger):
        out.print(escape(line), soft_wrap=True, highlight=False)
    if annotations is not None and (left_out := untimed(annotations)):
        out.print(f"without times in the tables, so without clips: {_some(left_out)}", soft_wrap=True, highlight=False)
    return [record for name, record in records.items() if name not in cut]


def _table(videos: Sequence[HDTFVideo], records: dict[str, Record], folder: Path, ready: Collection[str]) -> Table:
    table = Table("source", title=f"HDTF in {escape(str(folder))}", box=None, pad_edge=False)
    for column in ("videos", "done", "gone", "failed", "pending", "clips", "hours", "here", "hours here"):
        table.add_column(column, justify="right")
    for source in (*SOURCES, "all"):
        some = [video for video in videos if source in (video.source, "all")]
        states = [records[video.name].state for video in some]
        clips = [clip for video in some for clip in video.clips]
        here = [clip for clip in clips if records[clip.video].state == "done" or clip.name in ready]
        counts = [len(some), *(states.count(state) for state in ("done", "gone", "failed", "pending")), len(clips)]
        hours, hours_here = (f"{sum(clip.seconds for clip in part) / 3600:.2f}" for part in (clips, here))
        table.add_row(source, *map(str, counts), hours, str(len(here)), hours_here)
    return table


def _remarks(records: dict[str, Record], cut: Sequence[str], folder: Path, ledger: Ledger) -> Iterator[str]:
    by_state: dict[str, list[Record]] = {}
    for record in records.values():
        by_state.setdefault(record.state, []).append(record)
    for record in by_state.get("failed", []):
        yield f"failed {record.name} ({record.tries} tries, {record.when}): {record.reason}"
    pending = by_state.get("pending", [])
    yield from (f"pending {record.name}: {record.reason}" for record in pending if record.reason)
    if gone := by_state.get("gone"):
        yield f"gone: {_some(record.name for record in gone)}; --retry-gone asks for them again"
    if busy := sorted(ledger.claims.busy() & set(records)):
        yield f"in work: {_some(busy)}"
    if found := {record.name for record in (*pending, *by_state.get("gone", []))} & names_in(folder):
        yield f"here and not looked at yet, hdtf download does: {_some(sorted(found))}"
    if cut:
        yield f"needed by nobody, as all their clips came ready cut: {_some(cut)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
