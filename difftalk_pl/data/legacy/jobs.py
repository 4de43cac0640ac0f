"""What `prepare --from-legacy` has to do: a job for every clip of the layout, with its sound where there is one."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.data.legacy.audio import KIND
from difftalk_pl.data.legacy.layout import Layout, Piece, file_of, pieces
from difftalk_pl.data.speech.features import SpeechModels, read_record
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

SOUNDS = (".wav", ".flac", ".m4a", ".mp3", ".mp4", ".mov", ".mkv")  # the first that is there is taken


@dataclass(frozen=True)
class LegacySettings:
    """What shapes a clip besides its files; recorded in it, so that a second run knows what is done."""

    size: int
    min_face: float
    min_seconds: float
    features: tuple[str, ...]


class LegacyJob(NamedTuple):
    """A piece of the layout and what is to become of it; `sound` and `refused` may be missing."""

    source: Path
    root: Path
    piece: Piece
    sound: Path | None
    settings: LegacySettings
    models: SpeechModels
    overlay: Path | None = None
    refused: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.piece.name

    @property
    def identity(self) -> str:
        return self.piece.identity

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return f"{self.source}, {self.name}"

    def file(self, kind: str, frame: int) -> Path:
        """Of a frame of the clip, counted from 0."""
        return file_of(self.source, kind, self.identity, self.piece.first + frame)


def legacy_jobs(
    layout: Layout,
    root: Path,
    settings: LegacySettings,
    models: SpeechModels = SpeechModels(),
    sounds: Path | None = None,
    overlay: Path | None = None,
) -> list[LegacyJob]:
    """A job for every clip that the layout holds, and for every video or list of it that must be refused.

    Args:
        sounds: folder of ID.wav or another of `SOUNDS`.

    Raises:
        UserError: that folder is none, or the dataset has DeepSpeech features that a known model made.
    """
    if sounds is not None and not sounds.is_dir():
        raise UserError(f"--audio {sounds}: no such folder; expected one that holds ID.wav or ID.mp4 of the videos")
    if sounds is None:
        log.warning("%s holds no sound: its clips are silent; --audio FOLDER would give it to them", layout.folder)
    jobs = [
        LegacyJob(layout.folder, root, *_with_sound(piece, sounds), settings, models, overlay)
        for piece in pieces(layout, settings.min_seconds)
    ]
    _check_origin(root, jobs)
    return jobs


def _with_sound(piece: Piece, sounds: Path | None) -> tuple[Piece, Path | None]:
    """A piece and its sound; a problem where one is expected and not there."""
    if sounds is None or piece.problem:
        return piece, None
    if (sound := find_sound(sounds, piece.identity)) is None:
        problem = f"no {piece.identity}.wav in {sounds}, nor {', '.join(SOUNDS[1:])}"
        return piece._replace(problem=problem), None
    return piece, sound


def find_sound(sounds: Path, identity: str) -> Path | None:
    """A video's file in the folder of sounds."""
    paths = (sounds / f"{identity}{suffix}" for suffix in SOUNDS)
    return next((path for path in paths if path.is_file()), None)


def _check_origin(root: Path, jobs: list[LegacyJob]) -> None:
    """Steps of unknown origin must not be mixed with those of a model that is known."""
    made_by = read_record(root).get(KIND)
    if made_by is None:
        return
    for job in jobs:
        if job.piece.windows and not job.piece.problem and KIND not in job.settings.features:
            raise UserError(
                f"{root}: has {KIND} features made with {made_by}; nobody knows what made those of {job.source}: "
                f"give another --out, or both --audio and --features {KIND}"
            )
