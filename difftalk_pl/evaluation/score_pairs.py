"""What the command `score` compares: pairs of videos, and of videos with the clips of a prepared dataset."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, open_clips, read_dataset
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.prepare import Settings, to_fractions
from difftalk_pl.data.sources import find_videos
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop, crop_square, cut_frame, fill_gaps, smooth
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.video import probe, read_frames

FACE = Settings()  # as `prepare` finds it
CropName = Literal["whole", "face", "as prepared"]


class Pair(NamedTuple):
    """A video and its reference; None where one side is missing."""

    name: str
    video: Path | None
    reference: Path | Clip | None


class Footage(NamedTuple):
    """A pair that can be compared.

    frames: that both have; square: what is compared of each frame; landmarks: (T, 68, 2) of the reference, fractions of
    the square, or None and the reason; sounds: of the video and of the reference, (T * 640,) int16, None without a
    track; left_out: frames of each beyond the other's end.
    """

    video: Path
    reference: Path | Clip
    frames: int
    square: Crop
    landmarks: np.ndarray | None
    no_face: str
    sounds: tuple[np.ndarray | None, np.ndarray | None]
    left_out: dict[str, int]

    def chunks(self, size: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames of the video and of the reference at the same times, (n, S, S, 3) uint8 each."""
        both = zip(_frames(self.video), _frames(self.reference))
        cut = (tuple(cut_frame(frame, self.square, self.square.side) for frame in frames) for frames in both)
        frames = islice(cut, self.frames)
        while chunk := list(islice(frames, size)):
            video, reference = map(np.stack, zip(*chunk))
            yield video, reference


def is_dataset(path: Path) -> bool:
    return (path / "dataset.json").exists()


def pair_up(videos: list[Path], references: list[Path]) -> list[Pair]:
    """Pair files: with a dataset by the names of its clips, with a folder on either side by name, else by position."""
    if is_dataset(references[0]):
        clips = {clip.name: clip for clip in open_clips(references[0])}
        return [Pair(name, video, clips.get(name)) for name, video in find_videos(videos).items()]
    if any(path.is_dir() for path in [*videos, *references]):
        ours, true = find_videos(videos), find_videos(references)
        return [Pair(name, ours.get(name), true.get(name)) for name in sorted({*ours, *true})]
    names = [path.stem for path in max(videos, references, key=len)]
    numbered = [f"{name} ({number})" if name in names[: number - 1] else name for number, name in enumerate(names, 1)]
    return [Pair(name, *pair) for name, pair in zip(numbered, zip_longest(videos, references))]


def open_pair(pair: Pair, crop: CropName, audio: Literal["own", "reference"], limit: int | None) -> Footage:
    """Read both once, at most `limit` frames. Raises UserError where they cannot be compared."""
    _, video, reference = pair
    if video is None or reference is None:
        there, side = video or reference, "reference" if reference is None else "video"
        raise UserError(f"{there}: no {side} for it; files are paired by their names or their places")
    width, height = _size(reference)
    if _size(video) != (width, height):
        ours = "{} x {}".format(*_size(video))
        raise UserError(f"{video}: {ours}, its reference {width} x {height}; scale one of them to the other's size")
    if crop == "whole" and width != height:
        raise UserError(f"{reference}: {width} x {height}, expected a square; --crop face cuts one around the face")
    frames = [sum(1 for _ in islice(_frames(each), limit)) for each in (video, reference)]
    shared, square, no_face = min(frames), Crop(0, 0, width), ""
    landmarks: np.ndarray | None
    if isinstance(reference, Clip):
        landmarks = reference.landmarks
    else:
        track = track_faces(islice(_frames(reference), limit), detect_every=FACE.detect_every)
        try:
            landmarks = smooth(fill_gaps(track.landmarks, FACE.max_gap, FPS), FACE.smoothing)
            square = crop_square(landmarks, width, height) if crop == "face" else square
            landmarks = to_fractions(landmarks, square)
        except UserError as error:
            if crop == "face":
                raise
            landmarks, no_face = None, f"reference: {error}"
    own, true = (_sound(each, shared * SAMPLES_PER_FRAME) for each in (video, reference))
    sounds = (true if own is None and audio == "reference" else own, true)
    landmarks = None if landmarks is None else landmarks[:shared]
    left_out = dict(zip(("video", "reference"), (count - shared for count in frames)))
    return Footage(video, reference, shared, square, landmarks, no_face, sounds, left_out)


def frame_sides(pairs: list[Pair]) -> int | list[int]:
    """Return the side of the references, of all pairs: a video that fails must not change the protocol."""
    sides = set()
    for reference in (pair.reference for pair in pairs if pair.reference is not None):
        with suppress(UserError, OSError):
            sides.add(_size(reference)[1])
    return next(iter(sides)) if len(sides) == 1 else sorted(sides)


def _size(of: Path | Clip) -> tuple[int, int]:
    if isinstance(of, Clip):
        return (read_dataset(of.root).size,) * 2
    info = probe(of)
    return info.width, info.height


def _frames(of: Path | Clip) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) uint8 frames, 25 a second by their timestamps."""
    return read_frames(of.folder / "video.mp4" if isinstance(of, Clip) else of, FPS)


def _sound(of: Path | Clip, samples: int) -> np.ndarray | None:
    if isinstance(of, Clip):
        return of.audio()[:samples]
    return fit_audio(read_audio(of, RATE), samples) if probe(of).has_audio else None
