"""The command `prepare`: videos of people speaking -> a prepared dataset.

Any number of these commands, on any number of machines, may work on one dataset: claims say who makes which clip.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from difftalk_pl.data.clip_book import ClipBook
from difftalk_pl.data.clips import ClipRow, create_dataset
from difftalk_pl.data.features.kinds import SpeechModels, check_kinds, check_models, shared_threads
from difftalk_pl.data.features.stored import record_models
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.files.claims import Claims, TakenOverError
from difftalk_pl.data.files.job_bars import JobBars
from difftalk_pl.data.files.leftovers import remove_half_written, remove_leftovers
from difftalk_pl.data.files.pool import Event, Report, run_jobs
from difftalk_pl.data.refusals import Refusals
from difftalk_pl.data.report import report as write_report
from difftalk_pl.data.source import Job, Outcome, Settings, run_job
from difftalk_pl.data.sources.layouts import IdentityRule, NameRule, find_pieces
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import MARGIN
from difftalk_pl.progress import console

log = logging.getLogger(__name__)

CLAIMS = "claims"  # folder of the dataset
CRASHES = 2  # of its process, after which a clip is not tried again
POLL = (0.5, 10.0)  # s between two looks at what others work on: at first and at most
AnyJob = Job


def prepare(
    sources: list[Path],
    out: Path,
    size: Literal[64, 128, 256, 512] = 256,
    features: list[str] | str = "mfcc",
    workers: int = 1,
    smoothing: float = 0.7,
    detect_every: int = 10,
    min_face: float = 64,
    margin: float = MARGIN,
    min_seconds: float = 3,
    overlay: Path | None = None,
    retry_refused: bool = False,
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
    identity: IdentityRule = "auto",
    names: NameRule = "auto",
    report: bool = False,
) -> None:
    """Turn videos of people speaking into a prepared dataset: frames at 25 fps, 16 kHz audio, landmarks, features.

    Every video becomes a clip or is refused, with its reason in clips.csv. Run the same command again to go on after
    an interruption or to add videos: clips whose file and settings have not changed are left alone. Run it several
    times at once, on one machine or many that share the folder, and each clip is made by one of them; what a killed
    one had begun, another takes over after two minutes, or at once on its own machine.

    Args:
        sources: Video files, folders that are searched for them, and lists of clips (.csv).
        out: The dataset's folder; made, or added to.
        size: Side of the square frames in pixels. One dataset has one size.
        features: Kinds of audio features to compute: mfcc, deepspeech, wav2vec2, hubert; several as [a,b].
        workers: Processes; each prepares one clip at a time.
        smoothing: Deviation in frames of the Gaussian that smooths the landmarks along time; 0 for none.
        detect_every: Frames between two runs of the face detector; landmarks are found in every frame.
        min_face: Smallest face to accept, from ear to ear, pixels of the source.
        margin: Side of the square that is cut out, as a multiple of the face (brows to chin or ear to ear).
        min_seconds: Shortest clip to accept.
        overlay: Folder for one picture a clip with landmarks and mask drawn on it, for looking.
        retry_refused: Try clips again that were refused before, though neither file nor settings have changed.
        deepspeech: The frozen graph of DeepSpeech 0.1.0, output_graph.pb, for features deepspeech.
        speech_model: Folder or hub name of the network for features wav2vec2 or hubert.
        speech_layer: Which of its layers' output is taken; the last by default.
        identity: Who is in a video: name (everybody is somebody else), folder (that it lies in), top (the first folder
            below SOURCE), prefix (its name without the numbers at the end), or auto, which knows the paths of HDTF,
            VoxCeleb, MEAD and LRS and takes the name elsewhere.
        names: What clips are called: stem (the file's name), path (its folders, too), or auto, the path where the
            file's name is a number.
        report: At the end, measure the clips and write ROOT/report/index.html with a contact sheet of each.
    """
    settings = Settings(size, smoothing, detect_every, min_face, margin, min_seconds)
    kinds = check_kinds(features)
    pieces = find_pieces(sources, identity, names)
    models = SpeechModels(deepspeech, speech_model, speech_layer, threads=shared_threads(workers))
    made_with = check_models(kinds, models)
    create_dataset(out, size)
    claims = Claims(out / CLAIMS)
    remove_leftovers(out, claims.busy())
    with claims.turn("features.json"):
        record_models(out, made_with)
    book = ClipBook(out, claims)
    jobs = [Job(piece, out, settings, kinds, overlay, None, models) for piece in pieces]
    book.check_names({job.name: job.source for job in jobs})
    refusals = Refusals(out, claims.now(), retry_refused)
    started = time.monotonic()
    try:
        _work(run_job, jobs, workers, claims, book, refusals)
    finally:
        book.write()
    usable = book.usable()
    console.print(_summary(book.outcomes, time.monotonic() - started))
    if not usable:
        raise UserError(f"{out}: no clip could be prepared; the reasons are in {out / 'clips.csv'}")
    if report:
        write_report(out, workers)


def _work(
    function: Callable[..., Outcome],
    jobs: Sequence[AnyJob],
    workers: int,
    claims: Claims,
    book: ClipBook,
    refusals: Refusals,
) -> None:
    """Do what nobody does; when nothing else is left, wait for the others and look whether they have done theirs.

    A job whose process dies is tried once more, at the end, by whoever comes to it.
    """
    left = list(jobs)
    with JobBars("clips", len(jobs)) as bars:
        while left:
            free, later = _free(left, claims, bars)
            for event in run_jobs(partial(run_claimed, function, claims, refusals), free, workers):
                job, outcome = free[event.job], None
                bars.show(event, job.name)
                if event.kind == "died" and refusals.crashed(job.name, event.trouble) < CRASHES:
                    log.warning("%s: %s; it is tried again", job.title, event.trouble)
                    later.append(job)
                elif (outcome := _outcome(event, job, refusals)) is not None:
                    book.enter(outcome)
                    refused = outcome.action if outcome.row.status == "refused" else ""
                    bars.advance(job.title, refused, outcome.row.reason)
                elif event.kind == "done":
                    later.append(job)
            book.write()
            left = later


def run_claimed(
    function: Callable[..., Outcome], claims: Claims, refusals: Refusals, job: AnyJob, report: Report
) -> Outcome | None:
    """A job under its claim; None where another process has it or has taken it over. Runs in a worker.

    What another one has refused since this command began is not tried again.
    """
    claim = claims.take(job.name)
    if claim is None:
        return None

    with claim:
        if claim.after_dead:
            remove_half_written(job.root, job.name)
        refused = refusals.known(job.name) or {}
        if (crashes := refused.get("crashes", 0)) >= CRASHES:
            return _crashed(job, refused["reason"])
        try:
            outcome = function(job._replace(refused=None if crashes else refused or None), report, claim.confirm)
        except TakenOverError:
            return None
        except Exception:
            if claim.held():
                raise
            return None  # what went wrong may be that another one removed what this one was writing
        if not claim.held():
            return None
        if outcome.row.status == "ok":
            refusals.forget(job.name)
        elif outcome.refusal is not None and outcome.refusal != refused:
            refusals.write(job.name, outcome.refusal)
        return outcome


def _free(jobs: Sequence[AnyJob], claims: Claims, bars: JobBars) -> tuple[list[AnyJob], list[AnyJob]]:
    """The jobs that nobody has in hand, and the others; waits until there is one of the first."""
    pause = POLL[0]
    while True:
        busy = claims.busy()  # one look for both lists: a job that is given back meanwhile must not be in neither
        if free := [job for job in jobs if job.name not in busy]:
            return free, [job for job in jobs if job.name in busy]
        bars.wait(len(jobs))
        time.sleep(pause)
        pause = min(2 * pause, POLL[1])


def _outcome(event: Event, job: AnyJob, refusals: Refusals) -> Outcome | None:
    """The outcome that an event brings, if it ends a job. Crashes are refusals that the next run tries again."""
    if event.kind == "done":
        return event.value
    if event.kind == "failed":
        log.error("%s: unexpected error\n%s", job.title, event.value)
        refusals.write(job.name, {"reason": event.trouble, "crashes": CRASHES})
    return _crashed(job, event.trouble) if event.is_end else None


def _crashed(job: AnyJob, reason: str) -> Outcome:
    return Outcome(ClipRow(job.name, job.identity, 0, str(job.source), "refused", reason), "refused")


def _summary(outcomes: list[Outcome], seconds: float) -> Table:
    """What became of the videos, and how fast."""
    table = Table("videos", "count", "of which", box=None, pad_edge=False)
    for action in ("prepared", "skipped", "refused", "still refused"):
        rows = [outcome.row for outcome in outcomes if outcome.action == action]
        reasons = "\n".join(f"{row.name}: {row.reason}" for row in rows if row.reason)
        if rows:
            table.add_row(action, str(len(rows)), escape(reasons or ("unchanged" if action == "skipped" else "")))
    made = sum(outcome.row.frames for outcome in outcomes if outcome.action == "prepared") / FPS
    table.add_row(
        "time", f"{seconds:.1f} s", f"{made:.1f} s of video, {made / max(seconds, 1e-9):.1f} a second" if made else ""
    )
    return table
