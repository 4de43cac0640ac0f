"""The command `score`: the measures of `test` for any videos."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, open_clips
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.prepare import Settings, to_fractions
from difftalk_pl.data.sources import find_videos
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.clip_scores import ClipScores
from difftalk_pl.evaluation.judge import GROUND_TRUTH, ClipJudge, Judge, Measuring
from difftalk_pl.faces.crop import Crop, crop_square, cut_frame, fill_gaps, smooth
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.video import probe, read_frames
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

FACE = Settings()  # as `prepare` finds it
Audio = Literal["own", "reference"]


class Pair(NamedTuple):
    """A video and its reference, None where one side is missing; clip: the reference's, if it is a prepared one."""

    name: str
    video: Path | None
    reference: Path | None
    clip: Clip | None = None


class Footage(NamedTuple):
    """A pair that can be compared.

    frames: that both have; square: what is compared of each frame; landmarks: (T, 68, 2) of the reference, fractions of
    the square, or None and the reason; sounds: of the video and of the reference, (T * 640,) int16, None without a
    track; left_out: frames of each beyond the other's end.
    """

    video: Path
    reference: Path
    frames: int
    square: Crop
    landmarks: np.ndarray | None
    no_face: str | None
    sounds: tuple[np.ndarray | None, np.ndarray | None]
    left_out: dict[str, int]

    def chunks(self, size: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames of the video and of the reference at the same times, (n, S, S, 3) uint8 each."""
        both = zip(read_frames(self.video, FPS), read_frames(self.reference, FPS))
        cut = ([cut_frame(frame, self.square, self.square.side) for frame in frames] for frames in both)
        frames = islice(cut, self.frames)
        while chunk := list(islice(frames, size)):
            video, reference = map(np.stack, zip(*chunk))
            yield video, reference


def score(
    videos: list[Path],
    reference: list[Path],
    out: Path = Path("results.json"),
    method: str = "",
    measuring: Measuring = Measuring(),
    mask: MaskName = "mouth_safe",
    crop: Literal["whole", "face"] = "whole",
    audio: Audio = "own",
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
        out: the file to write.
        method: name of the videos' method; by default the name of their folder.
        measuring: what is measured.
        mask: the region of the mouth's measures, placed by the reference's landmarks.
        crop: whole compares square videos as they are; face cuts the square around the reference's face from both.
        audio: own is each video's own sound; with reference, a video without sound takes its reference's.
        frames: how many of each clip at most, from the first; by default all.
        device: cpu, cuda, or auto.
    """
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; give a file, such as {out / 'results.json'}")
    first = videos[0].absolute()
    method = method or (first.name if first.is_dir() else first.parent.name)
    judge, policy, pairs = Judge(measuring, choose_device(device)), MaskPolicy(mask), pair_up(videos, reference)
    prepared = any(pair.clip for pair in pairs)
    crop = "whole" if prepared else crop
    scores, left_out, sides = ClipScores(judge), dict[str, dict[str, int]](), set[int]()
    with progress_bar() as bar:
        for pair in bar.track(pairs, description="clips"):
            with suppress(UserError, OSError):  # a pair that fails must not change the protocol
                sides.update([] if pair.reference is None else [probe(pair.reference).height])
            try:
                footage = open_pair(pair, crop, audio, frames)
                points, size = footage.landmarks, footage.square.side
                clip = ClipJudge(judge, footage.frames, size, points, footage.no_face)
                for video, true in footage.chunks():
                    hidden = None
                    if points is not None:
                        hidden = np.stack([policy(one, size) for one in points[clip.seen :][: len(true)]])
                    clip.add(true, {method: video}, hidden)
                scores.keep(pair.name, clip, dict(zip((method, GROUND_TRUTH), footage.sounds)))
                left_out |= {pair.name: footage.left_out} if any(footage.left_out.values()) else {}
            except (UserError, OSError) as error:
                scores.fail(pair.name, str(error))
    result = scores.finish((method,))
    found = f"dlib on the reference, smoothed by {FACE.smoothing:g} frames"
    data = {
        "crop": "as prepared" if prepared else crop,
        "landmarks": "as prepared" if prepared else found,
        "frame_size": "of the face" if crop == "face" else sides.pop() if len(sides) == 1 else sorted(sides),
        "fps": FPS,
        "mask": mask,
        "frames_per_clip": frames,
        "mean": "over a clip's frames, then over clips",
    }  # with the keys of `test`: against a prepared dataset both are the same
    protocol = {"data": data, "measures": judge.describe(), "generation": {"audio": audio}}
    result.write(out, protocol, {"frames_left_out": left_out, "seen_in_training": None})
    if len(result.reasons) == len(pairs):
        raise UserError(f"{out}: none of {len(pairs)} clips could be scored, {next(iter(result.reasons.values()))}")
    log.info("%s: %d clips scored, %d failed", out, len(pairs) - len(result.reasons), len(result.reasons))


def pair_up(videos: list[Path], references: list[Path]) -> list[Pair]:
    """Pair files: with a dataset by the names of its clips, with a folder on either side by name, else by position."""
    if (references[0] / "dataset.json").exists():
        clips = {clip.name: clip for clip in open_clips(references[0])}
        files = {name: clip.folder / "video.mp4" for name, clip in clips.items()}
        return [Pair(name, one, files.get(name), clips.get(name)) for name, one in find_videos(videos).items()]
    if any(path.is_dir() for path in [*videos, *references]):
        ours, true = find_videos(videos), find_videos(references)
        return [Pair(name, ours.get(name), true.get(name)) for name in sorted({*ours, *true})]
    names = [path.stem for path in max(videos, references, key=len)]
    numbered = [f"{name} ({number})" if name in names[: number - 1] else name for number, name in enumerate(names, 1)]
    return [Pair(name, *pair) for name, pair in zip(numbered, zip_longest(videos, references))]


def open_pair(pair: Pair, crop: Literal["whole", "face"], audio: Audio, limit: int | None) -> Footage:
    """Read both once, at most `limit` frames. Raises UserError where they cannot be compared."""
    _, video, reference, clip = pair
    if video is None or reference is None:
        there, side = video or reference, "reference" if reference is None else "video"
        raise UserError(f"{there}: no {side} for it; files are paired by their names or their places")
    infos = [probe(video), probe(reference)]
    ours, (width, height) = ((info.width, info.height) for info in infos)
    if ours != (width, height):
        sizes = f"{ours[0]} x {ours[1]}, its reference {width} x {height}"
        raise UserError(f"{video}: {sizes}; scale one of them to the other's size")
    if crop == "whole" and width != height:
        raise UserError(f"{reference}: {width} x {height}, expected a square; --crop face cuts one around the face")
    frames = [sum(1 for _ in islice(read_frames(each, FPS), limit)) for each in (video, reference)]
    shared, square, no_face = min(frames), Crop(0, 0, width), None
    landmarks: np.ndarray | None
    if clip is not None:
        landmarks = clip.landmarks
    else:
        track = track_faces(islice(read_frames(reference, FPS), limit), detect_every=FACE.detect_every)
        try:
            landmarks = smooth(fill_gaps(track.landmarks, FACE.max_gap, FPS), FACE.smoothing)
            square = crop_square(landmarks, width, height) if crop == "face" else square
            landmarks = to_fractions(landmarks, square)
        except UserError as error:
            if crop == "face":
                raise
            landmarks, no_face = None, f"reference: {error}"
    samples = shared * SAMPLES_PER_FRAME
    own, true = (
        fit_audio(read_audio(path, RATE), samples) if info.has_audio else None
        for path, info in zip((video, reference), infos)
    )
    true = true if clip is None else clip.audio()[:samples]
    sounds = (true if own is None and audio == "reference" else own, true)
    landmarks = None if landmarks is None else landmarks[:shared]
    left_out = dict(zip(("video", "reference"), (count - shared for count in frames)))
    return Footage(video, reference, shared, square, landmarks, no_face, sounds, left_out)
