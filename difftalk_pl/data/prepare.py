"""The command `prepare`: videos of people speaking -> a prepared dataset."""

import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import TimeoutError as JobTimeout
from pathlib import Path
from typing import Literal

import numpy as np
from pebble import ProcessExpired
from rich.markup import escape

from difftalk_pl.data.clips import create_dataset, read_index, write_index
from difftalk_pl.data.features.kinds import Kind, SpeechModels
from difftalk_pl.data.features.stored import record_models
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.make_clip import Job, Outcome, Settings, refuse, run_job
from difftalk_pl.data.parallel import failure_reason, run_jobs
from difftalk_pl.data.sources import ClipSource, IdentityRule, NameRule, find_sources
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.faces.crop import MARGIN
from difftalk_pl.media.video import read_frames
from difftalk_pl.progress import console, progress_bar

log = logging.getLogger(__name__)

KILLED = (-9, -15)  # exit codes of a process that someone ended: the video may be all right


def prepare(
    sources: list[Path],
    out: Path,
    size: Literal[64, 128, 256, 512] = 256,
    features: list[Kind] | Kind = "mfcc",
    workers: int = 1,
    shard: str | None = None,
    smoothing: float = 0.7,
    detect_every: int = 10,
    min_face: float = 64,
    margin: float = MARGIN,
    min_seconds: float = 3,
    clip_timeout: float | None = None,
    split_scenes: bool = False,
    retry_refused: bool = False,
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
    identity: IdentityRule = "auto",
    names: NameRule = "auto",
    report: bool = False,
) -> None:
    """Turn videos of people speaking into a prepared dataset: frames at 25 fps, 16 kHz audio, landmarks, features.

    Every video becomes a clip or is refused, with its reason in clips.csv. Run the same command again to continue after
    an interruption or to add videos: only what is missing or has changed is made. On a cluster, run it once for each
    shard.

    Args:
        sources: Video files, folders that are searched for them, and lists of clips (.csv).
        out: The dataset's folder; made, or added to.
        size: Side of the square frames in pixels. One dataset has one size.
        features: Kinds of speech features to compute: mfcc, deepspeech, wav2vec2, hubert; several as [a,b].
        workers: Processes; each prepares one clip at a time.
        shard: I/N: prepare only the I-th of N parts of the clips, for job arrays.
        smoothing: Deviation in frames of the Gaussian that smooths the landmarks along time; 0 for none.
        detect_every: Frames between two runs of the face detector; landmarks are found in every frame.
        min_face: Smallest face to accept, from ear to ear, pixels of the source.
        margin: Side of the square that is cut out, as a multiple of the face (brows to chin or ear to ear).
        min_seconds: Shortest clip to accept.
        clip_timeout: Seconds after which a clip is given up and refused.
        split_scenes: Cut videos at scene changes, one clip for each scene; needs PySceneDetect.
        retry_refused: Try clips again that were refused before, though neither file nor settings have changed.
        deepspeech: The frozen graph of DeepSpeech 0.1.0, output_graph.pb, for features deepspeech.
        speech_model: Folder or hub name of the network for features wav2vec2 or hubert.
        speech_layer: Layer of that network whose output is taken; the last by default.
        identity: Who is in a video: name (everybody is somebody else), folder (that it lies in), top (the first folder
            below SOURCE), prefix (its name without the numbers at the end), or auto, which knows the paths of HDTF,
            VoxCeleb, MEAD and LRS and takes the name for other videos.
        names: Names of clips: stem (the file's name), path (its folders, too), or auto, the path if the file's name is
            a number.
        report: At the end, measure the clips and write ROOT/report/index.html with a contact sheet of each.
    """
    settings = Settings(size, smoothing, detect_every, min_face, margin, min_seconds)
    kinds = (features,) if isinstance(features, str) else tuple(features)
    models = SpeechModels(deepspeech, speech_model, speech_layer)
    chosen = take_shard(find_sources(sources, identity, names), shard)
    create_dataset(out, size)
    record_models(out, kinds, models)
    if split_scenes:
        chosen = _split_all(chosen, workers)
    _check_names(out, chosen)
    jobs = [Job(source, out, settings, kinds, models, retry_refused) for source in chosen]
    try:
        failed = _run_all(jobs, workers, clip_timeout)
    finally:
        write_index(out)
    if failed:
        raise UserError(f"{out}: {failed} clips failed for the reasons above; the same command tries them again")
    if shard is None and not any(row.status == "ok" for row in read_index(out).values()):
        raise UserError(f"{out}: no clip could be prepared; the reasons are in {out / 'clips.csv'}")
    if report:
        from difftalk_pl.data.quality import report as write_report  # pandas takes a while to import

        write_report(out, workers)


def take_shard(sources: Sequence[ClipSource], shard: str | None) -> list[ClipSource]:
    """Choose the sources of part I of N by a hash of their names; I counts from 0 or from 1."""
    if shard is None:
        return list(sources)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 0 <= int(found[1]) <= int(found[2]) > 0:
        raise UsageError(f"--shard {shard}: expected I/N, such as 0/16 to 15/16 or 1/16 to 16/16")
    part, parts = int(found[1]), int(found[2])
    hashes = (int(hashlib.sha256(source.name.encode()).hexdigest(), 16) for source in sources)
    return [source for source, number in zip(sources, hashes, strict=True) if number % parts == part % parts]


def _check_names(out: Path, sources: Sequence[ClipSource]) -> None:
    """Refuse to overwrite a clip that another file made which still exists."""
    rows = read_index(out)
    for source in sources:
        row = rows.get(source.name)
        if row is not None and row.source != str(source.video) and Path(row.source).exists():
            hint = "rename one of them, or give another --out"
            raise UserError(f"{source.video}: {out} has clip {source.name!r} from {row.source}; {hint}")


def _run_all(jobs: Sequence[Job], workers: int, timeout: float | None) -> int:
    """Make the clips, print each problem in one line and a summary at the end; returns how many failed."""
    counts, frames, started = Counter[str](), 0, time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(jobs))
        for job, result in run_jobs(run_job, jobs, workers, timeout):
            outcome = _give_up(job, result) if isinstance(result, Exception) else result
            if outcome.reason:
                problem = escape(f"{job.source.name}: {outcome.reason}")
                console.print(f"[yellow]{outcome.action}[/] {problem}", soft_wrap=True)
            counts[outcome.action] += 1
            frames += outcome.frames if outcome.action == "prepared" else 0
            bar.advance(task)
    summary = ", ".join(f"{count} {action}" for action, count in counts.items())
    console.print(f"{summary}; {frames / FPS:.1f} s of video in {time.monotonic() - started:.1f} s", soft_wrap=True)
    return counts["failed"]


def _give_up(job: Job, error: Exception) -> Outcome:
    """Refuse a clip that took too long, crashed its process or raised; one whose process was killed is tried again."""
    if not isinstance(error, ProcessExpired | JobTimeout):
        log.error("%s", job.source.video, exc_info=error)
    killed = isinstance(error, ProcessExpired) and error.exitcode in KILLED
    return Outcome("failed", failure_reason(error)) if killed else refuse(job, failure_reason(error))


def _split_all(sources: Sequence[ClipSource], workers: int) -> list[ClipSource]:
    """Split whole videos at their scene changes; one that cannot be read stays whole and is refused later."""
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise UserError(f"--split_scenes needs PySceneDetect ({error}): pip install 'difftalk_pl[scenes]'") from error
    split = [source for source in sources if not source.is_whole]
    for source, scenes in run_jobs(find_scenes, [source for source in sources if source.is_whole], workers):
        split += [source] if isinstance(scenes, Exception) else scenes
    return split


def find_scenes(source: ClipSource) -> list[ClipSource]:
    """Split a video at its hard cuts into NAME_s000, NAME_s001, …, at times of the frames that clips show."""
    from scenedetect import AdaptiveDetector, FrameTimecode

    detector, cuts = AdaptiveDetector(min_scene_len=0), [0]
    for number, frame in enumerate(read_frames(source.video, FPS)):
        step = max(1, max(frame.shape) // 256)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])
        cuts += [cut.frame_num for cut in detector.process_frame(FrameTimecode(number, fps=float(FPS)), small)]
    starts = [cut / FPS for cut in cuts]
    spans = enumerate(zip(starts, [*starts[1:], None], strict=True))
    return [source._replace(name=f"{source.name}_s{k:03d}", start=start, end=end) for k, (start, end) in spans]
