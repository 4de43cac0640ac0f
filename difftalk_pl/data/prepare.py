"""The command `prepare`: videos of people speaking -> a prepared dataset."""

import fcntl
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from difftalk_pl.data.audio import FPS
from difftalk_pl.data.clips import ClipRow, create_dataset, read_rows, remove_leftovers, write_rows
from difftalk_pl.data.features import SpeechModels, check_kinds, check_models, record_models, shared_threads
from difftalk_pl.data.framing import MARGIN
from difftalk_pl.data.legacy import run_legacy_job, write_splits
from difftalk_pl.data.legacy_jobs import LegacyJob, LegacySettings, legacy_jobs
from difftalk_pl.data.legacy_layout import open_layout
from difftalk_pl.data.pool import Event, run_jobs
from difftalk_pl.data.source import Job, Outcome, Settings, run_job
from difftalk_pl.errors import UserError
from difftalk_pl.progress import console, progress_bar

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp"),
}
log = logging.getLogger(__name__)
REFUSALS = "refused.json"  # beside clips.csv: with which file and settings a clip was refused


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
    from_legacy: Path | None = None,
    audio: Path | None = None,
) -> None:
    """Turn videos of people speaking into a prepared dataset: frames at 25 fps, 16 kHz audio, landmarks, features.

    Every video becomes a clip or is refused, with its reason in clips.csv. Run the same command again to go on after
    an interruption or to add videos: clips whose file and settings have not changed are left alone.

    Args:
        sources: Video files, and folders that are searched for them.
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
        from_legacy: In place of sources: a folder in the data layout of the released DiffTalk code (images, landmarks,
            audio_smooth, data.txt). Nothing is detected or smoothed anew. It has no sound, so clips are silent.
        audio: Sound for from_legacy: a folder with ID.wav or ID.mp4 for every video of the layout.
    """
    settings = Settings(size, smoothing, detect_every, min_face, margin, min_seconds)
    kinds = check_kinds(features) if from_legacy is None or audio is not None else ()
    _check_usage(sources, from_legacy, audio)
    layout = None if from_legacy is None else open_layout(from_legacy)
    videos = find_videos(sources) if layout is None else {}
    models = SpeechModels(deepspeech, speech_model, speech_layer, threads=shared_threads(workers))
    made_with = check_models(kinds, models)
    create_dataset(out, size)
    with alone(out):
        remove_leftovers(out)
        record_models(out, made_with)
        book = _Book(out)
        jobs: Sequence[Job | LegacyJob]
        if layout is None:
            jobs = [Job(path, out, name, settings, kinds, overlay, None, models) for name, path in videos.items()]
        else:
            shape = LegacySettings(size, min_face, min_seconds, kinds)
            jobs = legacy_jobs(layout, out, shape, models, audio, overlay)
            book.retire(layout.folder, {job.name for job in jobs})
        book.check_names({job.name: job.source for job in jobs})
        memory = {} if retry_refused else book.refusals
        jobs = [job._replace(refused=memory.get(job.name)) for job in jobs]
        started = time.monotonic()
        with _Screen(len(jobs)) as screen:
            for event in run_jobs(run_job if layout is None else run_legacy_job, jobs, workers):
                if (outcome := _outcome(event, jobs[event.job])) is not None:
                    book.enter(outcome)
                screen.show(event, jobs[event.job], outcome)
        if layout is not None:
            usable = {row.name for row in book.rows.values() if row.status == "ok"}
            made = [job.piece for job in jobs if isinstance(job, LegacyJob) and job.name in usable]
            write_splits(out, layout, made, usable)
    console.print(_summary(book.outcomes, time.monotonic() - started))
    if not any(row.status == "ok" for row in book.rows.values()):
        raise UserError(f"{out}: no clip could be prepared; the reasons are in {out / 'clips.csv'}")


def _check_usage(sources: list[Path], from_legacy: Path | None, audio: Path | None) -> None:
    if bool(sources) == (from_legacy is not None):
        raise UserError("give either videos (or folders of them) or --from-legacy DIR, one of the two")
    if audio is not None and from_legacy is None:
        raise UserError("--audio goes with --from-legacy; videos have their own sound")


def find_videos(sources: Iterable[Path]) -> dict[str, Path]:
    """Name -> file, sorted. Files are taken as they are, folders are searched for the suffixes of videos.

    Raises:
        UserError: a path does not exist, nothing is found, or two files would have one name.
    """
    files: dict[Path, Path] = {}  # by what they are, named by how they were given: links keep their own names
    for source in sources:
        if source.is_dir():
            inside = (path for path in sorted(source.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
            found = [path for path in inside if path.is_file() and not path.name.startswith(".")]
        elif source.exists():
            found = [source]
        else:
            raise UserError(f"{source}: no such file or folder")
        for path in found:
            if _is_text(path):
                files.setdefault(path.resolve(), path.absolute())
            else:
                log.warning("refused, its name is not UTF-8, rename it: %r", str(path))
    if not files:
        raise UserError(f"{', '.join(map(str, sources))}: no videos ({' '.join(sorted(VIDEO_SUFFIXES))})")
    videos: dict[str, Path] = {}
    for path in files.values():
        if path.stem in videos:
            raise UserError(f"{videos[path.stem]} and {path} would both be clip {path.stem!r}; rename one of them")
        videos[path.stem] = path
    return dict(sorted(videos.items()))


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One prepare at a time writes to a dataset; the lock goes with the process."""
    with (out / ".prepare.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{out}: another prepare is writing to it; wait for it, or give another --out") from error
        yield


class _Book:
    """clips.csv and refused.json, written anew whenever a clip is done."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows = root, read_rows(root)
        path = root / REFUSALS
        self.refusals: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.outcomes: list[Outcome] = []

    def check_names(self, videos: dict[str, Path]) -> None:
        """A clip of this name from another file that still exists must not be overwritten."""
        for name, path in videos.items():
            row = self.rows.get(name)
            if row is not None and row.source != str(path) and Path(row.source).exists():
                raise UserError(
                    f"{path}: {self.root} has clip {name!r} from {row.source}; "
                    "rename one of them, or give another --out"
                )

    def retire(self, source: Path, names: Collection[str]) -> None:
        """Clips that a source no longer makes: refused ones are forgotten, prepared ones are not used any more."""
        for row in list(self.rows.values()):
            if row.source == str(source) and row.name not in names:
                if row.status == "ok":
                    reason = f"{source} no longer makes this clip; {self.root / 'clips' / row.name} can be removed"
                    self.rows[row.name] = row._replace(frames=0, status="refused", reason=reason)
                elif not (self.root / "clips" / row.name).exists():
                    del self.rows[row.name]

    def enter(self, outcome: Outcome) -> None:
        name = outcome.row.name
        self.outcomes.append(outcome)
        known = self.rows.get(name)  # whoever edited the column `identity` keeps it
        self.rows[name] = outcome.row if known is None else outcome.row._replace(identity=known.identity)
        write_rows(self.root, self.rows.values())
        before = self.refusals.pop(name, None)
        if outcome.refusal is not None:
            self.refusals[name] = outcome.refusal
        if outcome.refusal != before:
            aside = self.root / f".{REFUSALS}.{os.getpid()}.tmp"
            aside.write_text(json.dumps(self.refusals, indent=2, sort_keys=True), encoding="utf-8")
            aside.replace(self.root / REFUSALS)


class _Screen:
    """One bar for the clips and one for the frames of every clip in work; refusals are printed above as they happen."""

    def __init__(self, clips: int) -> None:
        self.progress: Progress = progress_bar()
        self.clips = self.progress.add_task("clips", total=clips)
        self.bars: dict[int, TaskID] = {}

    def __enter__(self) -> "_Screen":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, event: Event, job: Job | LegacyJob, outcome: Outcome | None) -> None:
        if event.kind == "start":
            self.bars[event.job] = self.progress.add_task(escape(job.name), total=None)
        elif event.kind == "progress":
            done, total = event.value
            self.progress.update(self.bars[event.job], completed=done, total=total)
        if outcome is not None:
            self.progress.remove_task(self.bars.pop(event.job))
            self.progress.advance(self.clips)
            if outcome.row.status == "refused":
                console.print(f"[yellow]{outcome.action}[/] {escape(job.title)}: {escape(outcome.row.reason)}")


def _outcome(event: Event, job: Job | LegacyJob) -> Outcome | None:
    """The outcome that an event brings, if it ends a job. Crashes are refusals that the next run tries again."""
    if event.kind == "done":
        return event.value
    if event.kind == "failed":
        log.error("%s: unexpected error\n%s", job.title, event.value)
        reason = f"unexpected error: {event.value.strip().splitlines()[-1]}"
    elif event.kind == "died":
        reason = f"its process died with exit code {event.value}" + (" (out of memory?)" if event.value == -9 else "")
    else:
        return None
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
