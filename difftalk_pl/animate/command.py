"""The command `animate`: any video of a person and any speech -> a talking video."""

import logging
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from difftalk_pl.animate.pipeline import TalkingHeadPipeline
from difftalk_pl.data.features.kinds import SpeechModels
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.generation.sampler import NoiseKind, Preset, choose_sampler

log = logging.getLogger(__name__)
PREVIEW_SECONDS = 10.0
FOR_ALL_JOBS = {"checkpoint", "jobs", "preview", "device", "deepspeech", "speech_model", "speech_layer"}


def animate(
    checkpoint: Path,
    video: Path | None = None,
    audio: Path | None = None,
    out: Path | None = None,
    jobs: Path | None = None,
    preview: Path | None = None,
    preset: Preset = "fast",
    sampler: str | None = None,
    steps: PositiveInt | None = None,
    guidance: float | None = None,
    reference: str | None = None,
    seed: NonNegativeInt = 0,
    noise: NoiseKind = "shared",
    fps: PositiveFloat | Literal["source"] = FPS,
    interpolate: PositiveInt = 1,
    face: str = "largest",
    crf: float = 18,
    watermark: bool = True,
    batch_size: PositiveInt = 16,
    workers: NonNegativeInt = 1,
    device: str = "auto",
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
) -> None:
    """Make the person of a video say what a sound file says: the mouth is drawn anew, all other pixels stay.

    The result has the video's size and the sound's length; a shorter video runs back and forth, and its own sound is
    not used. Frames without a usable face stay as they are and are counted.

    Args:
        checkpoint: a trained diffusion model: a .ckpt of a run, or a folder made by export.
        video: a video of a person, or a picture.
        audio: anything with an audio track.
        out: the mp4 to write: H.264 and AAC.
        jobs: a YAML list of jobs, each with video, audio, out and, where they differ, options of this command. A job
            that fails does not end the others; a job whose `out` exists is skipped.
        preview: write a picture (PNG) of eight frames of the first ten seconds instead.
        preset: fast, or quality (DDIM with 200 steps, as in the paper).
        sampler: ddim, dpm++, unipc or another scheduler, in place of the preset's.
        steps: of sampling, in place of the preset's.
        guidance: above 1 follows the sound more closely, in twice the time; for models trained with audio_dropout.
        reference: the frame that shows the person: each (another one for every frame), random, widest (open mouth), or
            a picture's file; after `progressive:` only for the first frame, the others take the frame before them.
        seed: of noise and references.
        noise: shared by all frames, or independent, which trembles.
        fps: frames a second of the result, or source for those of the video.
        interpolate: 2 makes two frames of each, for 50 frames a second.
        face: largest, left, right, or a number from the left, 1 first.
        crf: quality of the video, lower is better.
        watermark: mark all frames invisibly as generated, as the authors of the method ask.
        batch_size: frames drawn at once.
        workers: processes that read frames.
        device: cpu, cuda, or auto.
        deepspeech: frozen graph of DeepSpeech 0.1.0, for a model that was trained with deepspeech features.
        speech_model: folder or hub name of the network, for a model that was trained with wav2vec2 or hubert.
        speech_layer: the layer whose output was taken; the last by default.
    """
    options = dict(locals())
    if jobs is None and None in (video, audio, preview or out):
        raise UsageError("give --video, --audio and --out (or --preview), or --jobs")
    models = SpeechModels(deepspeech, speech_model, speech_layer, device)
    pipeline = TalkingHeadPipeline.from_pretrained(checkpoint, None, device, models)
    if jobs is None:
        _make(pipeline, options)
    else:
        _run_jobs(jobs, pipeline, options)


def _make(pipeline: TalkingHeadPipeline, options: dict[str, Any]) -> None:
    """Make one video, or its preview."""
    changes = {name: options[name] for name in ("steps", "guidance", "reference", "seed", "noise")}
    given = {name: options[name] for name in ("video", "audio", "fps", "face", "batch_size", "workers")}
    given["sampler"] = choose_sampler(options["preset"], name=options["sampler"], **changes)
    if options["preview"] is not None:
        pipeline(**given, seconds=PREVIEW_SECONDS).preview(options["preview"])
    else:
        pipeline(**given).save(options["out"], options["interpolate"], options["watermark"], options["crf"])


def _typed(job: dict[str, Any]) -> dict[str, Any]:
    """Parse the values of a job as the command line parses them. Raises UserError for one that does not fit."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(animate, as_group=False)
    try:
        parsed = parser.parse_args([f"--{name}={value}" for name, value in {"checkpoint": ".", **job}.items()])
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"not an option of animate: {error}") from error
    return {name: parsed[name] for name in job}


def _run_jobs(path: Path, pipeline: TalkingHeadPipeline, options: dict[str, Any]) -> None:
    """Make the videos of a list that do not exist, in its order; a job that fails does not end the others.

    Raises:
        UserError: the file is no such list, or jobs failed.
    """
    try:
        jobs = [dict(job) for job in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected a YAML list of jobs, each with video, audio and out") from error
    failed = 0
    for number, job in enumerate(jobs, 1):
        try:
            if not {"video", "audio", "out"} <= job.keys() <= options.keys() - FOR_ALL_JOBS:
                raise UserError(f"{', '.join(job)}: expected video, audio, out and options of one video")
            if not Path(job["out"]).exists():
                _make(pipeline, {**options, **_typed(job)})
        except Exception as error:  # a defect that one job meets must not cost the others
            failed += 1
            log.error("job %d failed: %s", number, error, exc_info=not isinstance(error, UserError | OSError))
    if failed:
        raise UserError(f"{path}: {failed} of {len(jobs)} jobs failed, see above; the same command tries them again")
