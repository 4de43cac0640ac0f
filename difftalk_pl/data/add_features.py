"""The command `add-features`: another kind of speech features for a dataset that is there, however it was made."""

import logging
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.features import (
    SpeechModels,
    add_missing,
    check_kinds,
    check_models,
    record_models,
    shared_threads,
)
from difftalk_pl.data.pool import Event, Report, run_jobs
from difftalk_pl.data.prepare import alone
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A clip and the kinds that it shall have."""

    clip: Clip
    kinds: tuple[str, ...]
    models: SpeechModels


def add_features(
    data: Path,
    features: list[str] | str,
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
    workers: int = 1,
) -> None:
    """Compute kinds of speech features for every clip of a prepared dataset that lacks them, from the clip's own sound.

    Clips that have them are skipped, so that a killed run goes on where it was.

    Args:
        data: the prepared dataset, of prepare or synthesize.
        features: mfcc, deepspeech, wav2vec2, hubert; several as [a,b].
        deepspeech: the frozen graph of DeepSpeech 0.1.0, output_graph.pb, for deepspeech.
        speech_model: folder or hub name of the network for wav2vec2 or hubert.
        speech_layer: which of its layers' output is taken; the last by default.
        workers: processes; each takes one clip at a time.
    """
    kinds = check_kinds(features)
    clips = open_clips(data)
    models = SpeechModels(deepspeech, speech_model, speech_layer, threads=shared_threads(workers))
    made_with = check_models(kinds, models)
    failures: dict[str, str] = {}
    with alone(data):
        record_models(data, made_with)
        with progress_bar() as bar:
            task = bar.add_task("clips", total=len(clips))
            for event in run_jobs(run_job, [Job(clip, kinds, models) for clip in clips], workers):
                if failure := _enter(event, bar, task):
                    failures[clips[event.job].name] = failure
    for name, reason in failures.items():
        log.warning("%s: no %s: %s", name, " or ".join(kinds), reason)
    if failures:
        raise UserError(f"{data}: {len(failures)} of {len(clips)} clips failed ({', '.join(failures)})")
    log.info("%s: %d clips have %s", data, len(clips), ", ".join(kinds))


def run_job(job: Job, report: Report) -> str | None:
    """Runs in a worker. None, or why the clip cannot have the features."""
    try:
        if str(job.clip.info().get("audio", "")).startswith("none"):
            return "its source had no sound, and silence has no speech features"
        add_missing(job.clip, job.kinds, job.models)
    except (UserError, OSError, EOFError) as error:
        return str(error)
    return None


def _enter(event: Event, bar: Progress, task) -> str | None:
    """Advance the bar where a clip is done; why it failed, if it did."""
    if event.kind not in ("done", "failed", "died"):
        return None
    bar.advance(task)
    if event.kind == "died":
        return f"its process died with exit code {event.value}"
    return event.value if event.kind == "done" else event.value.strip().splitlines()[-1]
