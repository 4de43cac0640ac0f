"""The command `animate`: any video of a person and any speech -> a talking video."""

import inspect
from argparse import ArgumentError
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from difftalk_pl.animate.jobs import run_jobs
from difftalk_pl.animate.paste import Paste
from difftalk_pl.animate.pipeline import FaceSettings, TalkingHeadPipeline
from difftalk_pl.animate.preview import refuse_picture
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.generation.consistency import Steadiness
from difftalk_pl.generation.presets import Preset, choose_sampler
from difftalk_pl.media.writer import refuse_target
from difftalk_pl.training.weights import plain

PREVIEWED = 10.0  # s
FOR_ALL = ("checkpoint", "jobs", "preview", "device", "workers", "deepspeech", "speech_model", "speech_layer")


def animate(
    checkpoint: Path,
    video: Path | None = None,
    audio: Path | None = None,
    out: Path | None = None,
    jobs: Path | None = None,
    preview: Path | None = None,
    preset: Preset = "fast",
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    reference: str | None = None,
    seed: int = 0,
    steadiness: Steadiness = Steadiness(),
    fps: float | Literal["source"] = FPS,
    interpolate: int = 1,
    interpolator: Path | None = None,
    face: str | int = "largest",
    min_face: float = 32,
    max_gap: float = 0.5,
    paste: Paste = Paste(),
    crf: float = 18,
    no_watermark: bool = False,
    batch_size: int = 16,
    workers: int = 1,
    device: str = "auto",
    deepspeech: Path | None = None,
    speech_model: str | None = None,
    speech_layer: int | None = None,
) -> None:
    """Make the person of a video say what a sound file says: the mouth is drawn anew, all other pixels stay.

    The result has the video's size and the sound's length; a shorter video runs back and forth, and its own sound is
    not used. Frames without a usable face stay as they are and are counted. At the end it says what took how long.

    Args:
        checkpoint: a trained diffusion model: a .ckpt of a run, or a folder made by export.
        video: a person.
        audio: anything with an audio track.
        out: the mp4 to write: H.264 and AAC.
        jobs: a YAML list of jobs, each with video, audio, out and, where they differ, any option below. A job that
            fails does not end the others, and the next run makes only what is missing.
        preview: write a picture (PNG) of some frames of the first ten seconds instead, with square, landmarks and mask
            drawn on them.
        preset: fast, or quality (DDIM with 200 steps, as in the paper).
        sampler: ddim, dpm++, unipc or another scheduler, in place of the preset's.
        steps: of sampling, in place of the preset's.
        guidance: above 1 follows the sound more closely, in twice the time; for models trained with audio_dropout.
        reference: what shows the person: each (another frame of the video for every frame), random (one frame), widest
            (the one with the widest open mouth), or the file of a picture; `progressive:` before it takes the frame
            just generated from the second one on, as in the paper.
        seed: of noise and references.
        steadiness: what frames share, against a trembling mouth.
        fps: frames a second of the result, or source for those of the video.
        interpolate: 2 makes two frames of each, for 50 frames a second.
        interpolator: a TorchScript model for that, in place of motion compensation.
        face: largest, left, right, or a number from the left, 1 first.
        min_face: smallest face to draw, pixels from ear to ear.
        max_gap: seconds without a face that are bridged; in longer gaps frames stay as they are.
        paste: how the mouth is blended into the frame.
        crf: quality of the video, lower is better.
        no_watermark: leave out the invisible mark that says that the video is generated (the metadata still do). The
            authors of the method ask for the mark: keep it wherever others may see the video.
        batch_size: frames drawn at once.
        workers: processes that read frames.
        device: cpu, cuda, or auto.
        deepspeech: the frozen graph of DeepSpeech 0.1.0, for a model that was trained with deepspeech features.
        speech_model: folder or hub name of the network, for a model that was trained with wav2vec2 or hubert.
        speech_layer: which of its layers' output was taken; the last by default.
    """
    given = dict(locals())
    settings = {name: given[name] for name in inspect.signature(animate).parameters if name not in FOR_ALL}
    _refuse_incomplete(given)
    pipeline = TalkingHeadPipeline.from_pretrained(checkpoint, None, device, deepspeech, speech_model, speech_layer)
    if jobs is None:
        make(pipeline, workers=workers, preview=preview, **settings)
        return
    shared = {name: value for name, value in settings.items() if name not in ("video", "audio", "out")}
    run_jobs(jobs, partial(make, pipeline, workers=workers), partial(job_options, shared), pipeline.weights.hash)


def make(
    pipeline: TalkingHeadPipeline,
    *,
    video: Path,
    audio: Path,
    out: Path | None,
    workers: int = 0,
    preview: Path | None = None,
    tags: dict[str, str] | None = None,
    **given: Any,
) -> None:
    """One video, or its preview; `given` as for `animate`."""
    names = ("steps", "guidance", "reference", "seed", "steadiness")
    sampler = choose_sampler(given["preset"], name=given["sampler"], **{name: given[name] for name in names})
    face = FaceSettings(str(given["face"]), given["min_face"], given["max_gap"], given["paste"])
    inputs = [path for path in (video, audio, given["interpolator"], sampler.policy.file) if path is not None]
    if preview is not None:
        refuse_picture(preview, inputs)
        pipeline(video, audio, sampler, given["fps"], face, given["batch_size"], workers, PREVIEWED).preview(preview)
        return
    assert out is not None
    refuse_target(out, inputs)
    talking = pipeline(video, audio, sampler, given["fps"], face, given["batch_size"], workers)
    marked = not given["no_watermark"]
    talking.save(out, given["interpolate"], given["interpolator"], marked, given["crf"], tags)


def job_options(shared: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """The options of a job, typed and checked as those of the command are; `shared` where it does not say otherwise.

    Raises:
        UserError: an option that is not there, or a value that it cannot have.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(animate, as_group=False, skip=set(FOR_ALL))
    own = {str(name).replace("-", "_"): value for name, value in job.items()}
    if missing := [name for name in ("video", "audio", "out") if own.get(name) is None]:
        raise UserError(f"{' and '.join(missing)} missing")
    parser.set_defaults({name: plain(one) if is_dataclass(one) else one for name, one in shared.items()})
    try:
        return vars(parser.instantiate(parser.parse_object(own)))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _refuse_incomplete(given: dict[str, Any]) -> None:
    """Raises UsageError for files that are missing or too many."""
    single = [name for name in ("video", "audio", "out") if given[name] is not None]
    if given["jobs"] is not None:
        if single or given["preview"] is not None:
            raise UsageError(
                "--jobs names video, audio and out for every job: give it without them and without --preview"
            )
        return
    needed = ("video", "audio") if given["preview"] is not None else ("video", "audio", "out")
    missing = [f"--{name}" for name in needed if given[name] is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing: give --video, --audio and --out, or --jobs FILE.yaml")
