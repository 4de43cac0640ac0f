"""The command `score`: the measures of `test` for anybody's videos."""

import logging
from collections.abc import Iterable, Iterator
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
from difftalk_pl.stages.judge import CHUNK, GROUND_TRUTH, ClipFacts, ClipScore, Judge, Measuring
from difftalk_pl.stages.latents import choose_device
from difftalk_pl.stages.method_judge import OF_THE_MOUTH

log = logging.getLogger(__name__)

VIDEO, REFERENCE = "video", "reference"
LPIPS_OPTION = "`--measuring.lpips {} --measuring.lpips_weights FILE`"
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
    """What is known of a pair before its frames are compared.

    frames: that both have; square: what is compared of each; landmarks: (T, 68, 2) fractions of the square, or None and
    why; sounds: of the video and of the reference, None without a track; left: frames of each that the other one does
    not reach.
    """

    frames: int
    square: Crop
    landmarks: np.ndarray | None
    faceless: str
    sounds: tuple[np.ndarray | None, np.ndarray | None]
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
        frames: how many of each clip at most, from the first; by default all.
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
        self.sizes.add(footage.square.side)
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

    def content(self, method: str) -> dict[str, Any]:
        """results.json."""
        data = {
            "crop": self.how.crop,
            "frame_size": sorted(self.sizes),
            "fps": FPS,
            "mask": self.how.mask.name,
            "frames_per_clip": self.how.frames,
            "landmarks": f"dlib on the reference, smoothed by {FACE.smoothing:g} frames",
            "audio": "own" if self.how.audio == "own" else "own, else the reference's",
            "mean": "over a clip's frames, then over clips",
        }
        protocol = {"data": data, "measures": self.judge.describe(), "generation": None}
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


def open_pair(pair: Pair, how: How) -> Footage:
    """Look at both once. Raises UserError for whatever makes them impossible to compare, with a remedy."""
    if pair.video is None or pair.reference is None:
        there, side = pair.video or pair.reference, "reference" if pair.reference is None else "video"
        raise UserError(f"{there}: no {side} for it; files are paired by their names or their places")
    sizes = [(info.width, info.height) for info in map(probe, (pair.video, pair.reference))]
    if sizes[0] != sizes[1]:
        shapes = [f"{width} x {height}" for width, height in sizes]
        raise UserError(f"{pair.video}: {shapes[0]}, its reference {shapes[1]}; scale one of them to the other's size")
    count = sum(1 for _ in islice(read_frames(pair.video, FPS), how.frames))
    points, faceless, true_count = _landmarks(islice(read_frames(pair.reference, FPS), how.frames))
    square, shared = _square(pair.reference, points, faceless, sizes[1], how.crop), min(count, true_count)
    return Footage(
        shared,
        square,
        None if points is None else to_fractions(points[:shared], square),
        faceless,
        _sounds(pair.video, pair.reference, shared, how.audio),
        {"video": count - shared, "reference": true_count - shared},
    )


def read_chunks(pair: Pair, footage: Footage) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of the video and of the reference at the same times, (n, H, H, 3) uint8 each."""
    assert pair.video is not None and pair.reference is not None
    square = footage.square
    both = zip(*(read_frames(path, FPS) for path in (pair.video, pair.reference)))
    cut = (tuple(cut_frame(frame, square, square.side) for frame in frames) for frames in both)
    frames = islice(cut, footage.frames)
    while chunk := list(islice(frames, CHUNK)):
        generated, true = map(np.stack, zip(*chunk))
        yield generated, true


def _landmarks(frames: Iterable[np.ndarray]) -> tuple[np.ndarray | None, str, int]:
    """(T, 68, 2) pixels as `prepare` finds them, or None and the reason; and how many frames there are."""
    track = track_faces(frames, detect_every=FACE.detect_every)
    count = len(track.landmarks)
    try:
        return smooth(fill_gaps(track.landmarks, FACE.max_gap, FPS), FACE.smoothing), "", count
    except UserError as error:
        return None, f"reference: {error}", count


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
