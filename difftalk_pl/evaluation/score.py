"""The command `score`: the measures of `test` for anybody's videos."""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from difftalk_pl.callbacks.results import FORMAT, protocol_hash, software, summarise, write_results
from difftalk_pl.data.clips import versions
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import GROUND_TRUTH, ClipFacts, ClipScore, Judge, Measuring
from difftalk_pl.evaluation.method_judge import OF_THE_MOUTH
from difftalk_pl.evaluation.score_pairs import (
    FACE,
    Footage,
    How,
    Pair,
    frame_size,
    is_dataset,
    open_pair,
    pair_up,
    read_chunks,
)
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

VIDEO, REFERENCE = "video", "reference"
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
    frames: int | None = None,
    device: str = "auto",
) -> None:
    """Score videos against true ones, as `test` scores a model, and write a results.json that `table` reads.

    The first video is compared with the first reference and so on; with a folder on either side, those of the same
    name. Frames are compared at 25 a second, at the same times on both clocks. What cannot be scored is counted with
    its reason, and the others go on.

    The reference may be one prepared dataset: its clips, by name, with the landmarks that they were prepared with, as
    `test` takes them, so that both stand in one group of `table`. Clips without a video are not missed, since a dataset
    holds more than the people of a test.

    Args:
        out: the file to write; only what `score` wrote before is written over.
        method: how the videos' method is called; by default the name of their folder.
        measuring: what is measured.
        mask: the region of the mouth's measures, placed by the reference's landmarks.
        crop: whole compares square videos as they are; face cuts the square around the reference's face from both.
        audio: own is each video's own sound; with reference, a video without sound takes its reference's.
        frames: how many of each clip at most, from the first; by default all.
        device: cpu, cuda, or auto.
    """
    if frames is not None and frames < 1:
        raise UserError(f"--frames {frames}: expected 1 or more")
    _refuse_target(out)
    first = videos[0].absolute()
    method = method or (first.name if first.is_dir() else first.parent.name)
    if method == GROUND_TRUTH:
        raise UserError(f"--method {method!r}: the references are called so; give another name")
    prepared = any(is_dataset(path) for path in reference)
    if prepared and crop == "face":
        raise UserError("--crop face: the clips of a prepared dataset are cut already; leave --crop out")
    pairs, how = pair_up(videos, reference), How(MaskPolicy(mask), "as prepared" if prepared else crop, audio, frames)
    judge = Judge(measuring, choose_device(device), lpips_option=LPIPS_OPTION)
    job = _Scoring(judge, how)
    with progress_bar() as bar:
        for pair in bar.track(pairs, description="clips"):
            job.add(pair)
    write_results(out, job.content(method, frame_size(pairs, how)))
    scored = len(pairs) - len(job.reasons)
    if not scored:
        raise UserError(f"{out}: none of {len(pairs)} clips could be scored, {next(iter(job.reasons.values()))}")
    log.info("%s: %d clips scored, %d failed", out, scored, len(job.reasons))


class _Scoring:
    """Scores by clip, of the videos and of the references themselves."""

    def __init__(self, judge: Judge, how: How) -> None:
        self.judge, self.how = judge, how
        self.scores: dict[str, ClipScore] = {}
        self.true_scores: dict[str, ClipScore] = {}
        self.frames: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.left: dict[str, dict[str, int]] = {}

    def add(self, pair: Pair) -> None:
        """Score a pair; whatever is wrong with its files becomes its reason."""
        try:
            footage = open_pair(pair, self.how)
            scores = self._score(pair, footage)
        except (UserError, OSError) as error:
            reason = str(error)
            log.warning("%s: not scored: %s", pair.name, reason)
            self.reasons[pair.name], self.frames[pair.name] = reason, 0
            self.scores[pair.name] = self.true_scores[pair.name] = ClipScore.nothing(reason)
            return
        self.scores[pair.name], self.true_scores[pair.name] = scores[VIDEO], scores[REFERENCE]
        self.frames[pair.name] = footage.frames
        if any(footage.left.values()):
            self.left[pair.name] = footage.left
            log.warning("%s: lengths differ, left out at the end: %s", pair.name, footage.left)

    def _score(self, pair: Pair, footage: Footage) -> dict[str, ClipScore]:
        """Of the reference against itself, and of the video."""
        points, size = footage.landmarks, footage.square.side
        judge, start = self.judge.open(ClipFacts(pair.name, footage.frames, size, points)), 0
        for generated, true in read_chunks(pair, footage):
            mask = None
            if points is not None:
                mask = np.stack([self.how.mask(one, size) for one in points[start : start + len(true)]])
            judge.add(true, {REFERENCE: true, VIDEO: generated}, mask)
            start += len(true)
        scores = judge.scores(dict(zip((VIDEO, REFERENCE), footage.sounds)))
        lost = dict.fromkeys(OF_THE_MOUTH, footage.faceless) if points is None else {}
        return {name: one._replace(failed={**lost, **one.failed}) for name, one in scores.items()}

    def protocol(self, size: int | list[int] | str) -> dict[str, Any]:
        """With the keys of the protocol of `test`: against a prepared dataset both are the same."""
        crop = self.how.crop
        found = f"dlib on the reference, smoothed by {FACE.smoothing:g} frames"
        data = {
            "crop": crop,
            "landmarks": crop if crop == "as prepared" else found,
            "frame_size": size,
            "fps": FPS,
            "mask": self.how.mask.name,
            "frames_per_clip": self.how.frames,
            "mean": "over a clip's frames, then over clips",
        }
        generation = {"audio": "own" if self.how.audio == "own" else "own, else the reference's"}
        return {"data": data, "measures": self.judge.describe(), "generation": generation}

    def content(self, method: str, size: int | list[int] | str) -> dict[str, Any]:
        """results.json."""
        protocol = self.protocol(size)
        scored = len(self.frames) - len(self.reasons)
        return {
            "format": FORMAT,
            "methods": {
                GROUND_TRUTH: summarise(self.true_scores, self.frames),
                method: summarise(self.scores, self.frames),
            },
            "protocol": protocol,
            "protocol_hash": protocol_hash(protocol),
            "versions": versions() | software(),
            "clips": {
                "scored": scored,
                "failed": len(self.reasons),
                "not_scored": sorted(self.reasons),
                "reasons": self.reasons,
                "frames_left_out": self.left,
                "seen_in_training": None,
            },
        }


def _refuse_target(out: Path) -> None:
    """Before any work. Raises UserError unless there is no such file yet, or one that `score` wrote."""
    if above := next((folder for folder in out.absolute().parents if folder.exists() and not folder.is_dir()), None):
        raise UserError(f"--out {out}: {above} is a file; give a path through folders")
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; give a file, such as {out / 'results.json'}")
    if not out.exists():
        return
    try:
        content = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or "methods" not in content:
        raise UserError(f"--out {out}: is there, and score did not write it; give another name")
    if "model" in content or content.get("format") != FORMAT:
        raise UserError(f"--out {out}: holds the scores of a model, by test or validate; give another name")
