"""The command `add-features`: another kind of speech features for a dataset that is there, however it was made."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from difftalk_pl.data.audio import STEPS_PER_FRAME
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.features.kinds import (
    BATCHED,
    SpeechModels,
    add_missing,
    check_kinds,
    check_models,
    lacking,
    record_models,
    shared_threads,
)
from difftalk_pl.data.files.claims import Claims, TakenOverError
from difftalk_pl.data.files.pool import Event, Report, run_jobs
from difftalk_pl.data.prepare import CLAIMS
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)


BATCH_STEPS = 30_000  # of the clips that a process takes together, padded to the longest: ten minutes of sound
BATCH_CLIPS = 16
PATIENCE = 3600.0  # s that another command may have a clip in hand


class Job(NamedTuple):
    """Clips that a process takes together, and the kinds that they shall have."""

    clips: tuple[Clip, ...]
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
        workers: processes; each takes one clip at a time, or for deepspeech some of like lengths.
    """
    kinds = check_kinds(features)
    clips = open_clips(data)
    models = SpeechModels(deepspeech, speech_model, speech_layer, threads=shared_threads(workers))
    made_with = check_models(kinds, models)
    failures: dict[str, str] = {}
    claim = Claims(data / CLAIMS).take("features.json")
    if claim is None:
        raise UserError(f"{data}: another add-features works on it; wait for it")
    with claim:
        record_models(data, made_with)
        with progress_bar() as bar:
            missing = [clip for clip in clips if any(lacking([clip], kind) for kind in kinds)]
            task = bar.add_task("clips", total=len(clips), completed=len(clips) - len(missing))
            jobs = [Job(group, kinds, models) for group in groups(missing, kinds, workers)]
            for event in run_jobs(run_job, jobs, workers):
                failures |= _enter(event, jobs[event.job], bar, task)
    for name, reason in sorted(failures.items()):
        log.warning("%s: no %s: %s", name, " or ".join(kinds), reason)
    if failures:
        raise UserError(f"{data}: {len(failures)} of {len(clips)} clips failed ({', '.join(sorted(failures))})")
    log.info("%s: %d clips have %s", data, len(clips), ", ".join(kinds))


def groups(clips: Sequence[Clip], kinds: Sequence[str], workers: int) -> list[tuple[Clip, ...]]:
    """Clips that are heard in one pass: neighbours in length, the longest first, and something for every worker."""
    most = min(BATCH_CLIPS, math.ceil(len(clips) / max(1, workers))) if set(kinds) & set(BATCHED) else 1
    found: list[tuple[Clip, ...]] = []
    for clip in sorted(clips, key=lambda clip: (-clip.frames, clip.name)):
        last = found[-1] if found else ()
        if last and len(last) < most and (len(last) + 1) * last[0].frames * STEPS_PER_FRAME <= BATCH_STEPS:
            found[-1] = (*last, clip)
        else:
            found.append((clip,))
    return found


def run_job(job: Job, report: Report) -> dict[str, str]:
    """Runs in a worker. Which clips cannot have the features, and why; one that cannot does not hold up the others.

    Nobody may make a clip anew meanwhile, so it is claimed, as `prepare` does.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(Claims(clip.root / CLAIMS).turn(clip.name, PATIENCE)) for clip in job.clips]
        failures = {clip.name: reason for clip in job.clips if (reason := _unheard(clip))}
        able = [clip for clip in job.clips if clip.name not in failures]

        def ready() -> None:
            for claim in held:
                claim.confirm()

        try:
            add_missing(able, job.kinds, job.models, ready)
        except (UserError, OSError) as error:
            failures |= {clip.name: str(error) for clip in able}
        except TakenOverError:
            failures |= {clip.name: "stood still for too long, and another process took over" for clip in able}
    return failures


def _unheard(clip: Clip) -> str:
    """Why a clip's sound cannot be used; empty where it can."""
    try:
        if clip.info()["frames"] != clip.frames:
            return "it was prepared anew meanwhile; run add-features again"
        if str(clip.info().get("audio", "")).startswith("none"):
            return "its source had no sound, and silence has no speech features"
        clip.audio()
    except UserError as error:
        return str(error)
    except (OSError, ValueError, LookupError) as error:
        return f"{clip.folder / 'clip.json'}: cannot be read ({error}); prepare the clip again"
    return ""


def _enter(event: Event, job: Job, bar: Progress, task) -> dict[str, str]:
    """Advance the bar where a job is done; which clips failed, and why."""
    if not event.is_end:
        return {}
    bar.advance(task, len(job.clips))
    if event.kind == "done":
        return event.value
    return {clip.name: event.trouble for clip in job.clips}
