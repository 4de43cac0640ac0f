"""What the command `score` compares: pairs of videos, and of videos with the clips of a prepared dataset."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, open_clips, read_dataset
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.make_clip import Settings, to_fractions
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.sources import find_videos
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import CHUNK
from difftalk_pl.faces.crop import Crop, crop_square, cut_frame, fill_gaps, smooth
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.audio import fit_audio, read_audio
from difftalk_pl.media.video import probe, read_frames

FACE = Settings()  # as `prepare` finds it


class Pair(NamedTuple):
    """What is compared; a missing side is the reason why it cannot be."""

    name: str
    video: Path | None
    reference: Path | Clip | None


class How(NamedTuple):
    """What is done to both videos before they are measured. With a prepared dataset, crop is "as prepared"."""

    mask: MaskPolicy
    crop: Literal["whole", "face", "as prepared"]
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


class _True(NamedTuple):
    """A reference: how many frames it has, its square, and landmarks, (T, 68, 2) fractions, or None and why."""

    frames: int
    square: Crop
    landmarks: np.ndarray | None
    faceless: str


def is_dataset(path: Path) -> bool:
    return (path / "dataset.json").exists()


def pair_up(videos: list[Path], references: list[Path]) -> list[Pair]:
    """With a dataset, the clips that the videos name; with a folder, all files by their names; else by their places.

    Raises:
        UserError: a folder without videos, two files of one name in the folders, or a dataset beside other references.
    """
    if any(is_dataset(path) for path in references):
        if len(references) > 1:
            raise UserError(f"--reference {' '.join(map(str, references))}: give one prepared dataset alone, or videos")
        clips = {clip.name: clip for clip in open_clips(references[0])}
        return [Pair(name, video, clips.get(name)) for name, video in find_videos(videos).items()]
    if any(path.is_dir() for path in [*videos, *references]):
        ours, true = find_videos(videos), find_videos(references)
        return [Pair(name, ours.get(name), true.get(name)) for name in sorted({*ours, *true})]
    pairs: dict[str, Pair] = {}
    for number in range(max(len(videos), len(references))):
        one, other = (paths[number] if number < len(paths) else None for paths in (videos, references))
        name = (one or other or Path()).stem
        name = f"{name} ({number + 1})" if name in pairs else name
        pairs[name] = Pair(name, one, other)
    return list(pairs.values())


def frame_size(pairs: list[Pair], how: How) -> int | list[int] | str:
    """Side of what is compared, for the protocol. References of failed pairs count, too: a video that cannot be read
    must not part its method from the others."""
    if how.crop == "face":
        return "of the face"
    sides = sorted({side for pair in pairs if (side := _side(pair.reference)) is not None})
    return sides[0] if len(sides) == 1 else sides


def _side(reference: Path | Clip | None) -> int | None:
    """None where it is unknown, or where there is no square."""
    try:
        width, height = (0, 0) if reference is None else _size(reference)
    except (UserError, OSError):
        return None
    return width if width == height > 0 else None


def _size(of: Path | Clip) -> tuple[int, int]:
    """Width and height, pixels."""
    if isinstance(of, Clip):
        return (read_dataset(of.root).size,) * 2
    info = probe(of)
    return info.width, info.height


def open_pair(pair: Pair, how: How) -> Footage:
    """Look at both once. Raises UserError for whatever makes them impossible to compare, with a remedy."""
    video, reference = pair.video, pair.reference
    if video is None or reference is None:
        there, side = video or reference, "reference" if reference is None else "video"
        raise UserError(f"{there}: no {side} for it; files are paired by their names or their places")
    sizes = [_size(video), _size(reference)]
    if sizes[0] != sizes[1]:
        shapes = [f"{width} x {height}" for width, height in sizes]
        raise UserError(f"{video}: {shapes[0]}, its reference {shapes[1]}; scale one of them to the other's size")
    count = sum(1 for _ in islice(_frames(video), how.frames))
    true = _of_clip(reference, how) if isinstance(reference, Clip) else _of_video(reference, how, sizes[1])
    shared = min(count, true.frames)
    return Footage(
        shared,
        true.square,
        None if true.landmarks is None else true.landmarks[:shared],
        true.faceless,
        _sounds(video, reference, shared, how.audio),
        {"video": count - shared, "reference": true.frames - shared},
    )


def read_chunks(pair: Pair, footage: Footage) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of the video and of the reference at the same times, (n, H, H, 3) uint8 each."""
    assert pair.video is not None and pair.reference is not None
    square = footage.square
    both = zip(_frames(pair.video), _frames(pair.reference))
    cut = (tuple(cut_frame(frame, square, square.side) for frame in frames) for frames in both)
    frames = islice(cut, footage.frames)
    while chunk := list(islice(frames, CHUNK)):
        generated, true = map(np.stack, zip(*chunk))
        yield generated, true


def _frames(of: Path | Clip) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 each, 25 a second, all of the size of the first one: streams may change theirs on the way."""
    shape: tuple[int, ...] = ()
    for number, frame in enumerate(_stored(of) if isinstance(of, Clip) else read_frames(of, FPS)):
        shape = shape or frame.shape
        if frame.shape != shape:
            found, first = (f"{width} x {height}" for height, width, _ in (frame.shape, shape))
            where = of.folder if isinstance(of, Clip) else of
            raise UserError(f"{where}: frame {number} is {found}, the first one {first}; encode it anew at one size")
        yield frame


def _stored(clip: Clip) -> Iterator[np.ndarray]:
    reader = clip.reader()
    try:
        for number in range(len(reader)):
            yield reader[number]
    finally:
        reader.close()


def _of_clip(clip: Clip, how: How) -> _True:
    """As it was prepared."""
    landmarks = clip.landmarks
    if not np.isfinite(landmarks).all():
        raise UserError(f"{clip.folder / 'landmarks.npy'}: not finite everywhere; prepare its clip again")
    return _True(min(clip.frames, how.frames or clip.frames), Crop(0, 0, _size(clip)[0]), landmarks, "")


def _of_video(path: Path, how: How, size: tuple[int, int]) -> _True:
    """Looked at by dlib."""
    points, faceless, count = _landmarks(islice(_frames(path), how.frames))
    square = _square(path, points, faceless, size, how)
    return _True(count, square, None if points is None else to_fractions(points, square), faceless)


def _landmarks(frames: Iterable[np.ndarray]) -> tuple[np.ndarray | None, str, int]:
    """(T, 68, 2) pixels as `prepare` finds them, or None and the reason; and how many frames there are."""
    track = track_faces(frames, detect_every=FACE.detect_every)
    count = len(track.landmarks)
    try:
        return smooth(fill_gaps(track.landmarks, FACE.max_gap, FPS), FACE.smoothing), "", count
    except UserError as error:
        return None, f"reference: {error}", count


def _square(path: Path, points: np.ndarray | None, faceless: str, size: tuple[int, int], how: How) -> Crop:
    """What is compared of a frame: always a square, since landmarks are fractions of one side."""
    width, height = size
    if how.crop == "whole":
        if width != height:
            raise UserError(f"{path}: {width} x {height}, expected a square; --crop face cuts one around the face")
        return Crop(0, 0, width)
    if points is None:
        raise UserError(f"{path}: {faceless}; --crop whole compares without a face")
    return crop_square(points, width, height)


def _sounds(
    video: Path, reference: Path | Clip, frames: int, audio: Literal["own", "reference"]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(T * 640,) int16 of each, None without a track."""
    own, true = (_sound(of, frames * SAMPLES_PER_FRAME) for of in (video, reference))
    return (true if own is None and audio == "reference" else own), true


def _sound(of: Path | Clip, samples: int) -> np.ndarray | None:
    if isinstance(of, Clip):
        return of.audio()[:samples]
    return fit_audio(read_audio(of, RATE), samples) if probe(of).has_audio else None
