"""The command `score`: the measures of `test` for anybody's videos."""

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import PositiveInt

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import GROUND_TRUTH, Judge, Measuring
from difftalk_pl.evaluation.method_judge import OF_THE_MOUTH, ClipScore
from difftalk_pl.evaluation.results import EvaluationResult, write_results
from difftalk_pl.evaluation.score_pairs import FACE, CropName, Footage, frame_sides, is_dataset, open_pair, pair_up
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

LPIPS_OPTION = "`--measuring.lpips {} --measuring.lpips_weights FILE`"


def score(
    videos: list[Path],
    reference: list[Path],
    out: Path = Path("results.json"),
    method: str = "",
    measuring: Measuring = Measuring(),
    mask: MaskName = "mouth_safe",
    crop: Literal["whole", "face"] = "whole",
    audio: Literal["own", "reference"] = "own",
    frames: PositiveInt | None = None,
    device: str = "auto",
) -> None:
    """Score videos against true ones, as `test` scores a model, and write a results.json that `table` reads.

    The first video is compared with the first reference and so on; with a folder on either side, those of the same
    name. Frames are compared at 25 a second, at the same times on both clocks. A pair that cannot be scored is counted
    with its reason, and the others go on.

    The reference may be one prepared dataset: its clips, by name, with the landmarks that they were prepared with, as
    `test` takes them, so that both are comparable in `table`.

    Args:
        out: the file to write; it replaces only an earlier one of `score`.
        method: name of the videos' method; by default the name of their folder.
        measuring: what is measured.
        mask: the region of the mouth's measures, placed by the reference's landmarks.
        crop: whole compares square videos as they are; face cuts the square around the reference's face from both.
        audio: own is each video's own sound; with reference, a video without sound takes its reference's.
        frames: how many of each clip at most, from the first; by default all.
        device: cpu, cuda, or auto.
    """
    _refuse_to_replace(out)
    first = videos[0].absolute()
    method = method or (first.name if first.is_dir() else first.parent.name)
    cut: CropName = "as prepared" if any(is_dataset(path) for path in reference) else crop
    judge, pairs = Judge(measuring, choose_device(device), lpips_option=LPIPS_OPTION), pair_up(videos, reference)
    result, left_out = EvaluationResult({GROUND_TRUTH: {}, method: {}}, {}, {}), dict[str, dict[str, int]]()
    with progress_bar() as bar:
        for pair in bar.track(pairs, description="clips"):
            try:
                footage = open_pair(pair, cut, audio, frames)
                scores = _score(footage, judge, MaskPolicy(mask), method)
                result.frames[pair.name], left_out[pair.name] = footage.frames, footage.left_out
            except (UserError, OSError) as error:
                log.warning("%s: not scored: %s", pair.name, error)
                result.reasons[pair.name], result.frames[pair.name] = str(error), 0
                scores = dict.fromkeys(result.scores, ClipScore.nothing(str(error)))
            for name, found in scores.items():
                result.scores[name][pair.name] = found
    data = {
        "crop": cut,
        "landmarks": cut if cut == "as prepared" else f"dlib on the reference, smoothed by {FACE.smoothing:g} frames",
        "frame_size": "of the face" if cut == "face" else frame_sides(pairs),
        "fps": FPS,
        "mask": mask,
        "frames_per_clip": frames,
        "mean": "over a clip's frames, then over clips",
    }  # with the keys of `test`: against a prepared dataset both are the same
    protocol = {"data": data, "measures": judge.describe(), "generation": {"audio": audio}}
    left_out = {name: counts for name, counts in left_out.items() if any(counts.values())}
    write_results(out, result.content(protocol, {"frames_left_out": left_out, "seen_in_training": None}))
    if len(result.reasons) == len(pairs):
        raise UserError(f"{out}: none of {len(pairs)} clips could be scored, {next(iter(result.reasons.values()))}")
    log.info("%s: %d clips scored, %d failed", out, len(pairs) - len(result.reasons), len(result.reasons))


def _score(footage: Footage, judge: Judge, mask: MaskPolicy, method: str) -> dict[str, Any]:
    """Score the reference against itself, and the video."""
    points, size = footage.landmarks, footage.square.side
    clip, start = judge.open(footage.frames, size, points), 0
    for video, true in footage.chunks():
        hidden = None
        if points is not None:
            hidden = np.stack([mask(one, size) for one in points[start : start + len(true)]])
        clip.add(true, {GROUND_TRUTH: true, method: video}, hidden)
        start += len(true)
    scores = clip.scores(dict(zip((method, GROUND_TRUTH), footage.sounds)))
    no_face = dict.fromkeys(OF_THE_MOUTH, footage.no_face) if points is None else {}
    return {name: one._replace(failed={**no_face, **one.failed}) for name, one in scores.items()}


def _refuse_to_replace(out: Path) -> None:
    """Raise UserError, before any work, for a folder and for a file that `score` did not write."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; give a file, such as {out / 'results.json'}")
    text = out.read_text(encoding="utf-8", errors="replace") if out.exists() else '"methods"'
    if '"methods"' not in text or '"model": {' in text:
        raise UserError(f"--out {out}: exists, and score did not write it; give another name")
