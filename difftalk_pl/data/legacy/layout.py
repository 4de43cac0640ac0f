"""What lies in a folder of the released code's data layout: lists, files, and the runs of frames that make clips.

DIR/images/ID_K.jpg, DIR/landmarks/ID_K.lms and DIR/audio_smooth/ID_K.npy are frame K of video ID; DIR/data.txt has a
line `ID LAST_FRAME` a video. data_train.txt and data_test.txt list frames as ID_K, a line each, in DIR or beside it.
The released code draws references from the frames 1 to LAST_FRAME - 1, so frame 0 and the last one may be missing.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from difftalk_pl.data.audio import FPS
from difftalk_pl.errors import UserError

IMAGES, LANDMARKS, AUDIO = "images", "landmarks", "audio_smooth"
SUFFIXES = {IMAGES: ".jpg", LANDMARKS: ".lms", AUDIO: ".npy"}
VIDEOS, LISTS = "data.txt", {"train": "data_train.txt", "test": "data_test.txt"}
NUMBER = r"(?:0|[1-9]\d{0,6})"
FRAME = re.compile(rf"({NUMBER})_({NUMBER})")
VIDEO = re.compile(rf"({NUMBER})\s+({NUMBER})")
SHOWN = 3  # of many names or lines in a message

log = logging.getLogger(__name__)
Frames = dict[str, np.ndarray]  # ID -> (N,) frame numbers, ascending


class Piece(NamedTuple):
    """Consecutive frames that become one clip, `first` and `last` included; or a problem instead of them.

    windows: every frame has its file in audio_smooth.
    note: what the video lacks.
    """

    name: str
    identity: str
    first: int = 0
    last: int = -1
    windows: bool = False
    note: str = ""
    problem: str = ""

    @property
    def frames(self) -> int:
        return self.last - self.first + 1


@dataclass
class Layout:
    """A folder of this layout. Opening it lists the folders; no image is opened.

    files: frames that have a file, by folder.
    last: last frame of each video, from data.txt.
    listed: frames of data_train.txt and data_test.txt, by side; without the file, without the side.
    problems: what is wrong with the lists, by their names.
    """

    folder: Path
    files: dict[str, Frames] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    listed: dict[str, Frames] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def file_of(folder: Path, kind: str, identity: str, frame: int) -> Path:
    """A frame's file in one of the three folders."""
    return folder / kind / f"{identity}_{frame}{SUFFIXES[kind]}"


def open_layout(folder: Path) -> Layout:
    """List what is there.

    Raises:
        UserError: this is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for needed in (IMAGES, LANDMARKS, VIDEOS):
        if not (folder / needed).exists():
            raise UserError(
                f"{folder}: no {needed}; the released code's layout has images/, landmarks/, audio_smooth/ and data.txt"
            )
    layout = Layout(folder.absolute(), {kind: _frames_in(folder / kind, SUFFIXES[kind]) for kind in SUFFIXES})
    _read_videos(layout)
    for side, name in LISTS.items():
        if (path := next((p for p in (folder / name, folder.parent / name) if p.is_file()), None)) is not None:
            _read_list(layout, side, path)
    return layout


def pieces(layout: Layout, min_seconds: float) -> list[Piece]:
    """All clips that the layout holds, in the order of data.txt, and what is wrong with it."""
    lists = {f"{layout.folder.name}/{name}": problem for name, problem in layout.problems.items()}
    wrong = [Piece(name, name, problem=problem) for name, problem in lists.items()]
    return [piece for identity in layout.last for piece in _of_video(layout, identity, min_seconds)] + wrong


def sides(layout: Layout, clips: Sequence[Piece]) -> dict[str, list[str]]:
    """Which of the clips each list names, all frames of a person or none, since a split is by person.

    Frame 0 and the last one need not be in the list: the released lists leave them out. Who is listed in part is on
    no side, and that is said.
    """
    found: dict[str, list[str]] = {}
    for side, listed in layout.listed.items():
        found[side] = []
        for identity in dict.fromkeys(piece.identity for piece in clips):
            own = [piece for piece in clips if piece.identity == identity]
            needed = np.concatenate([np.arange(piece.first, piece.last + 1) for piece in own])
            needed = needed[(needed > 0) & (needed < layout.last[identity])]
            there = int(np.isin(needed, listed.get(identity, [])).sum())
            if there == len(needed):
                found[side] += [piece.name for piece in own]
            elif there:
                log.warning(
                    "%s: not on the %s side, %s lists %d of its %d frames, and a split is by person",
                    *(identity, side, LISTS[side], there, len(needed)),
                )
    return found


def _of_video(layout: Layout, identity: str, min_seconds: float) -> Iterator[Piece]:
    """A video's runs of complete frames that are long enough. One is named as the video, several ID_from_FRAME."""
    last = layout.last[identity]
    there = {kind: files.get(identity, np.zeros(0, int)) for kind, files in layout.files.items()}
    needed = [kind for kind in there if kind != AUDIO or len(there[AUDIO])]
    if not len(there[IMAGES]):
        yield Piece(identity, identity, problem=f"{VIDEOS} lists it, but there is no {IMAGES}/{identity}_*.jpg")
        return
    note = _note(layout, identity, {kind: there[kind] for kind in needed}, last)
    complete = there[IMAGES][there[IMAGES] <= last]
    for kind in needed:
        complete = np.intersect1d(complete, there[kind], assume_unique=True)
    runs = np.split(complete, np.flatnonzero(np.diff(complete) > 1) + 1)
    long = [run for run in runs if len(run) and len(run) >= min_seconds * FPS]
    if not long:
        longest = max(map(len, runs))
        problem = f"at most {longest} frames in a row are complete, {longest / FPS:.1f} s of {min_seconds:g} s needed"
        yield Piece(identity, identity, problem="; ".join(filter(None, [problem, note])))
        return
    if short := sum(map(len, runs)) - sum(map(len, long)):
        note = "; ".join(filter(None, [note, f"{short} frames between gaps are too few to use"]))
    for run in long:
        name = identity if len(long) == 1 else f"{identity}_from_{run[0]}"
        yield Piece(name, identity, int(run[0]), int(run[-1]), AUDIO in needed, note)


def _note(layout: Layout, identity: str, there: Frames, last: int) -> str:
    """What a video lacks, what it has too much of; empty where it is as it should be."""
    every = np.unique(np.concatenate(list(there.values())))
    every = every[every <= last]
    top = int(every.max(initial=0))
    needed = np.union1d(np.arange(1, min(top + 1, last)), every)
    found = []
    for kind, frames in there.items():
        missing = np.setdiff1d(needed, frames)
        if len(missing):
            name = file_of(layout.folder, kind, identity, int(missing[0])).name
            more = f" and {len(missing) - 1} more of them" if len(missing) > 1 else ""
            found.append(f"{kind}/{name}{more} missing")
    if top < last - 1:
        found.append(f"the files end at frame {top}, {VIDEOS} says {last}")
    if surplus := int((there[IMAGES] > last).sum()):
        found.append(f"{surplus} frames are left out: {VIDEOS} says that frame {last} is the last")
    return "; ".join(found)


def _frames_in(folder: Path, suffix: str) -> Frames:
    numbers: dict[str, list[int]] = defaultdict(list)
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removesuffix(suffix)
        if name != path.name and (match := FRAME.fullmatch(name)):
            numbers[match[1]].append(int(match[2]))
    return {identity: np.sort(np.array(frames)) for identity, frames in numbers.items()}


def _read_videos(layout: Layout) -> None:
    """data.txt: a malformed line is a problem of its own and ends nothing."""
    wrong = []
    for number, line in _lines(layout.folder / VIDEOS):
        if (match := VIDEO.fullmatch(line)) is None:
            wrong.append(f"line {number}: {line[:40]!r} is not `ID LAST_FRAME`")
        elif match[1] in layout.last:
            wrong.append(f"line {number}: video {match[1]} for the second time")
        else:
            layout.last[match[1]] = int(match[2])
    if not layout.last and not wrong:
        raise UserError(f"{layout.folder / VIDEOS}: empty; expected a line `ID LAST_FRAME` a video")
    unlisted = sorted(set(layout.files[IMAGES]) - set(layout.last), key=int)
    wrong += [f"no line for video {identity}, though {IMAGES}/ has it" for identity in unlisted]
    if wrong:
        layout.problems[VIDEOS] = _some(wrong)


def _read_list(layout: Layout, side: str, path: Path) -> None:
    """data_train.txt or data_test.txt."""
    wrong, frames = [], defaultdict[str, list[int]](list)
    for number, line in _lines(path):
        if match := FRAME.fullmatch(line):
            frames[match[1]].append(int(match[2]))
        else:
            wrong.append(f"line {number}: {line[:40]!r} is not `ID_FRAME`")
    layout.listed[side] = {identity: np.unique(numbers) for identity, numbers in frames.items()}
    missing = [
        f"{identity}_{frame}"
        for identity, numbers in layout.listed[side].items()
        for frame in np.setdiff1d(numbers, layout.files[IMAGES].get(identity, []))
    ]
    if missing:
        wrong.append(f"frames that do not exist ({len(missing)}): {_some(missing, ', ')}")
    if wrong:
        layout.problems[path.name] = _some(wrong)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and what is on the lines that are not blank."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _some(items: list[str], between: str = "; ") -> str:
    more = f"{between}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return between.join(items[:SHOWN]) + more
