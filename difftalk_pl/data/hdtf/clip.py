"""One clip of HDTF out of its video: OUT/RD_Radio1_000.mp4, which tells in its tags what it was cut from and how."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.clips import write_json
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.files.pool import Report
from difftalk_pl.data.hdtf.crop import LOOKS, Chosen, Part, choose_crop
from difftalk_pl.data.hdtf.files import is_whole
from difftalk_pl.data.hdtf.tables import HDTFClip
from difftalk_pl.data.sources.people import person_of
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop
from difftalk_pl.media.audio import read_audio
from difftalk_pl.media.files import MediaError, audio_stream, check_span, open_media
from difftalk_pl.media.video import probe
from difftalk_pl.media.writer import TAG, read_tags, write_video

CRF = 8  # of the clips; they are encoded once more by prepare
AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
REFUSED = ".refused"  # folder in OUT: why a clip was refused, and from what
RULE = 1  # raise it when the same sources give other clips


class CutJob(NamedTuple):
    """A clip and where it comes from.

    Args:
        ready: whether `video` is the clip itself, that came ready cut.
        size: side in pixels; None keeps the window's own.
    """

    clip: HDTFClip
    lines: int | None
    video: Path
    out: Path
    size: int | None
    ready: bool = False

    @property
    def target(self) -> Path:
        return clip_path(self.out, self.clip)

    @property
    def part(self) -> Part:
        return Part(self.video) if self.ready else Part(self.video, self.clip.start, self.clip.stop)

    def made_from(self) -> dict[str, Any]:
        """What a second run compares; names no folder, since machines may see the file elsewhere."""
        there, clip = self.video.stat(), self.clip
        return {
            "rule": RULE,
            "video": [self.video.name, there.st_size, there.st_mtime_ns],
            "span": [self.part.start, self.part.stop],
            "window": clip.window,
            "ratio": clip.ratio,
            "lines": self.lines,
            "size": self.size,
        }


class CutRow(NamedTuple):
    """What became of a clip: a line of cut.csv."""

    name: str
    identity: str
    status: Literal["ok", "refused", "missing"]
    crop: str = ""  # window, scaled, landmarks, whole
    x: int | str = ""
    y: int | str = ""
    side: int | str = ""
    frames: int | str = ""
    video: str = ""
    reason: str = ""


class Cut(NamedTuple):
    """A row, and whether it was made now. None: another process has the clip. failed: it cannot be written, which is
    not remembered."""

    row: CutRow | None
    action: Literal["cut", "kept", "refused", "still refused", "failed"] | None = None


def run_cut(claims: Claims, job: CutJob, report: Report) -> Cut:
    """Cut a clip, or leave what is there where it was made of the same. Runs in a worker."""
    claim = claims.take(job.clip.name)
    if claim is None:
        return Cut(None)
    with claim:
        refusal = refusal_path(job.out, job.clip)
        try:
            made_from = job.made_from()
        except OSError as error:
            return Cut(CutRow(job.clip.name, "", "refused", reason=f"{job.video}: {error.strerror}"), "failed")
        if (row := known_row(job.out, job.clip, made_from)) is not None:
            return Cut(row, "kept" if row.status == "ok" else "still refused")
        for half_written in job.out.glob(f".{job.target.name}.*.tmp"):  # by a run that was killed
            half_written.unlink(missing_ok=True)
        try:
            cut_clip(job, made_from, report)
        except UserError as error:
            reason = str(error).removeprefix(f"{job.video}: ")
            if reason.startswith(str(job.target)):
                return Cut(CutRow(job.clip.name, "", "refused", reason=reason), "failed")
            refusal.parent.mkdir(exist_ok=True)
            write_json(refusal, {"made_from": made_from, "reason": reason})
            return Cut(known_row(job.out, job.clip, made_from), "refused")
        refusal.unlink(missing_ok=True)
        return Cut(known_row(job.out, job.clip, made_from), "cut")


def cut_clip(job: CutJob, made_from: dict[str, Any], report: Report) -> None:
    """Write a clip's file: frames on the screen at exactly start + k / 25 s, and the sound at the rate of its source.

    Raises:
        UserError: the video is of no use here; the message is the reason.
    """
    if job.target.exists() and job.target.stat().st_size and recorded(job.target) is None:
        raise UserError(f"{job.target} is there already and was not made by hdtf cut; move it away")
    part = job.part
    info = probe(part.path)
    check_span(part.path, part.start, part.stop, info.duration)
    seconds = (info.duration if part.stop is None else part.stop) - part.start
    looks, frames = round(seconds * LOOKS), round(seconds * FPS)
    if not info.has_audio:
        raise UserError("no audio track")
    rate = sound_rate(part.path)
    sound = read_audio(part.path, rate, part.start, part.stop)
    if job.ready and info.width == info.height:
        chosen = Chosen(Crop(0, 0, info.width), "whole")
    else:
        chosen = choose_crop(
            part,
            info.width,
            info.height,
            job.clip.window,
            job.lines,
            job.clip.ratio,
            look=lambda some: _reported(some, 0, looks + frames, report),
        )
    if (short := seconds + part.start - info.duration) > 1 / FPS:
        reason = f"{short:.1f} s shorter than in the tables, as the video ends"
        chosen = chosen._replace(reason=f"{chosen.reason}; {reason}" if chosen.reason else reason)
    squares = part.squares(chosen.crop, job.size or chosen.crop.side)
    content = {**chosen._asdict(), "crop": chosen.crop._asdict(), "made_from": made_from}
    write_video(
        job.target,
        _reported(squares, looks, looks + frames, report),
        FPS,
        sound,
        rate,
        CRF,
        tags={TAG: json.dumps({"hdtf_cut": content})},
    )


def known_row(out: Path, clip: HDTFClip, made_from: dict[str, Any] | None = None) -> CutRow | None:
    """The row of a clip that was cut or refused before; None where there is none, or it was made of something else.

    Args:
        made_from: None takes any.
    """
    row = CutRow(clip.name, person_of(clip.source, clip.video), "ok")
    path = clip_path(out, clip)
    there = recorded(path)
    if there is not None and _is_same(there, made_from) and is_whole(path):
        frames, video = round(probe(path).duration * FPS), there["made_from"]["video"][0]
        return row._replace(crop=there["how"], **there["crop"], frames=frames, video=video, reason=there["reason"])
    try:
        refusal = json.loads(refusal_path(out, clip).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not _is_same(refusal, made_from):
        return None
    return row._replace(status="refused", video=refusal["made_from"]["video"][0], reason=refusal["reason"])


def clip_path(out: Path, clip: HDTFClip) -> Path:
    return out / f"{clip.name}.mp4"


def refusal_path(out: Path, clip: HDTFClip) -> Path:
    return out / REFUSED / f"{clip.name}.json"


def recorded(path: Path) -> dict[str, Any] | None:
    """What a clip tells about how it was cut; None where it is not there or not ours."""
    try:
        return json.loads(read_tags(path)[TAG])["hdtf_cut"]
    except (MediaError, KeyError, ValueError, TypeError):
        return None


def sound_rate(path: Path) -> int:
    """The rate of a file's sound, or the next one that speech and AAC can have."""
    with open_media(path) as container:
        rate = audio_stream(container, path).rate
    return next((usual for usual in AAC_RATES if usual >= rate), AAC_RATES[-1])


def _is_same(record: dict[str, Any], made_from: dict[str, Any] | None) -> bool:
    return made_from is None or record.get("made_from") == json.loads(json.dumps(made_from))


def _reported(frames: Iterable[np.ndarray], before: int, total: int, report: Report) -> Iterator[np.ndarray]:
    every = max(FPS, math.ceil(total / 100))
    for number, frame in enumerate(frames, before + 1):
        if number % every == 0:
            report(number, total)
        yield frame
