"""The command `score`: the measures of `test` for anybody's videos."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.callbacks.results import FORMAT, protocol_hash, software, summarise, write_results
from difftalk_pl.data.audio import FPS, RATE
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, versions
from difftalk_pl.data.faces import track_faces
from difftalk_pl.data.framing import Crop, crop_square, fill_gaps, smooth
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.prepare import find_videos
from difftalk_pl.data.source import Settings, cut_frame, to_fractions
from difftalk_pl.data.video import fit_audio, probe, read_audio, read_frames
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar
from difftalk_pl.stages.judge import ALL, ClipScore, Judge, Measuring
from difftalk_pl.stages.latents import choose_device

log = logging.getLogger(__name__)

GROUND_TRUTH = "ground truth"
LPIPS_OPTION = "`--measuring.lpips {} --measuring.lpips_weights FILE`"
OF_THE_FACE = ("mouth_psnr", "mouth_ssim", "mouth_lpips", "jitter_pixels", "opening_correlation")
FACE = Settings()  # as `prepare` finds it


class Pair(NamedTuple):
    """What is compared; a missing side is the reason why it cannot be."""

    name: str
    video: Path | None
    reference: Path | None


class How(NamedTuple):
    """What is done to both videos before they are measured."""

    mask: MaskPolicy
    crop: Literal["whole", "face"]
    audio: Literal["own", "reference"]
    frames: int | None


class Footage(NamedTuple):
    """Both videos on one clock. `left` are the frames of each that the other one does not reach.

    generated, true: (T, H, H, 3) uint8; landmarks: (T, 68, 2) fractions of the side, or None and why.
    """

    generated: np.ndarray
    true: np.ndarray
    sounds: tuple[np.ndarray | None, np.ndarray | None]
    landmarks: np.ndarray | None
    faceless: str
    left: dict[str, int]


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

    Args:
        out: the file to write.
        method: how the videos' method is called; by default the name of their folder.
        measuring: what is measured.
        mask: the region of the mouth's measures, placed by the reference's landmarks.
        crop: whole compares square videos as they are; face cuts the square around the reference's face from both.
        audio: own is each video's own sound; with reference, a video without sound takes its reference's.
        frames: how many of each clip at most, from the first; a clip is held in memory. By default all.
        device: cpu, cuda, or auto.
    """
    if frames is not None and frames < 1:
        raise UserError(f"--frames {frames}: expected 1 or more")
    first = videos[0].absolute()
    method = method or (first.name if first.is_dir() else first.parent.name)
    if method == GROUND_TRUTH:
        raise UserError(f"--method {method!r}: the references are called so; give another name")
    pairs, how = pair_up(videos, reference), How(MaskPolicy(mask), crop, audio, frames)
    judge = Judge(measuring, choose_device(device), lpips_option=LPIPS_OPTION)
    job = _Scoring(judge, how)
    with progress_bar() as bar:
        for pair in bar.track(pairs, description="clips"):
            job.add(pair)
    write_results(out, job.content(method))
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
        self.sizes: set[int] = set()

    def add(self, pair: Pair) -> None:
        """Score a pair; whatever is wrong with its files becomes its reason."""
        try:
            footage = read_pair(pair, self.how)
            true_score, own_score = self._score(footage)
        except (UserError, OSError) as error:
            reason = str(error)
            log.warning("%s: not scored: %s", pair.name, reason)
            self.reasons[pair.name], self.frames[pair.name] = reason, 0
            nothing = ClipScore(dict.fromkeys(ALL), dict.fromkeys(ALL, reason), None)
            self.scores[pair.name] = self.true_scores[pair.name] = nothing
            return
        self.scores[pair.name], self.true_scores[pair.name] = own_score, true_score
        self.frames[pair.name] = len(footage.true)
        self.sizes.add(footage.true.shape[1])
        if any(footage.left.values()):
            self.left[pair.name] = footage.left
            log.warning("%s: lengths differ, left out at the end: %s", pair.name, footage.left)

    def _score(self, footage: Footage) -> tuple[ClipScore, ClipScore]:
        """Of the reference against itself, and of the video."""
        points, size, mask = footage.landmarks, footage.true.shape[1], None
        if points is not None:
            mask = np.stack([self.how.mask(one, size) for one in points])
        found = []
        for frames, sound in zip((footage.true, footage.generated), reversed(footage.sounds)):
            one = self.judge.score(frames, footage.true, sound, points, mask)
            lost = dict.fromkeys(OF_THE_FACE, footage.faceless) if points is None else {}
            found.append(one._replace(failed={**lost, **one.failed}))
        return found[0], found[1]

    def content(self, method: str) -> dict[str, Any]:
        """results.json."""
        protocol = {
            "frame_size": sorted(self.sizes),
            "fps": FPS,
            "crop": self.how.crop,
            "mask": self.how.mask.name,
            "landmarks": f"dlib on the reference, smoothed by {FACE.smoothing:g} frames",
            "audio": "own" if self.how.audio == "own" else "own, else the reference's",
            "frames_per_clip": self.how.frames,
            "mean": "over a clip's frames, then over clips",
            **self.judge.describe(),
        }
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


def pair_up(videos: list[Path], references: list[Path]) -> list[Pair]:
    """By their places in the two lists or, with a folder in either, by the names of the files.

    Raises:
        UserError: a folder without videos, or two files of one name in the folders.
    """
    if any(path.is_dir() for path in [*videos, *references]):
        ours, true = find_videos(videos), find_videos(references)
        return [Pair(name, ours.get(name), true.get(name)) for name in sorted({*ours, *true})]
    count = max(len(videos), len(references))
    pairs: dict[str, Pair] = {}
    for number in range(count):
        one, other = (paths[number] if number < len(paths) else None for paths in (videos, references))
        name = (one or other or Path()).stem
        name = f"{name} ({number + 1})" if name in pairs else name
        pairs[name] = Pair(name, one, other)
    return list(pairs.values())


def read_pair(pair: Pair, how: How) -> Footage:
    """Decode both. Raises UserError for whatever makes them impossible to compare, with a remedy."""
    if pair.video is None or pair.reference is None:
        there, side = pair.video or pair.reference, "reference" if pair.reference is None else "video"
        raise UserError(f"{there}: no {side} for it; files are paired by their names or their places")
    sizes = [(info.width, info.height) for info in map(probe, (pair.video, pair.reference))]
    if sizes[0] != sizes[1]:
        shapes = [f"{width} x {height}" for width, height in sizes]
        raise UserError(f"{pair.video}: {shapes[0]}, its reference {shapes[1]}; scale one of them to the other's size")
    (width, height), true = sizes[1], list(islice(read_frames(pair.reference, FPS), how.frames))
    points, faceless = _landmarks(true)
    square = _square(pair.reference, points, faceless, (width, height), how.crop)
    true = [cut_frame(frame, square, square.side) for frame in true]
    generated = [cut_frame(frame, square, square.side) for frame in islice(read_frames(pair.video, FPS), how.frames)]
    shared = min(len(true), len(generated))
    return Footage(
        np.stack(generated[:shared]),
        np.stack(true[:shared]),
        _sounds(pair.video, pair.reference, shared, how.audio),
        None if points is None else to_fractions(points[:shared], square),
        faceless,
        {"video": len(generated) - shared, "reference": len(true) - shared},
    )


def _landmarks(frames: list[np.ndarray]) -> tuple[np.ndarray | None, str]:
    """(T, 68, 2) pixels as `prepare` finds them, or None and the reason."""
    try:
        found = track_faces(frames, detect_every=FACE.detect_every).landmarks
        return smooth(fill_gaps(found, FACE.max_gap, FPS), FACE.smoothing), ""
    except UserError as error:
        return None, f"reference: {error}"


def _square(
    path: Path, points: np.ndarray | None, faceless: str, size: tuple[int, int], crop: Literal["whole", "face"]
) -> Crop:
    """What is compared of a frame: always a square, since landmarks are fractions of one side."""
    width, height = size
    if crop == "whole":
        if width != height:
            raise UserError(f"{path}: {width} x {height}, expected a square; --crop face cuts one around the face")
        return Crop(0, 0, width)
    if points is None:
        raise UserError(f"{path}: {faceless}; --crop whole compares without a face")
    return crop_square(points, width, height)


def _sounds(
    video: Path, reference: Path, frames: int, audio: Literal["own", "reference"]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(T * 640,) int16 of each, None without a track."""
    true, own = (
        fit_audio(read_audio(path, RATE), frames * SAMPLES_PER_FRAME) if probe(path).has_audio else None
        for path in (reference, video)
    )
    return (true if own is None and audio == "reference" else own), true
