"""The command `identities`: whether the clips of one person show one face, and those of two people two."""

import csv
import logging
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from difftalk_pl.data.clip_book import change_rows
from difftalk_pl.data.clips import Clip, ClipRow, open_clips
from difftalk_pl.data.faces.chosen_face import SAME_PERSON
from difftalk_pl.data.faces.measured_faces import MeasuredFaces
from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.files.whole_files import replacing
from difftalk_pl.data.prepare import CLAIMS
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

SHOWN = 20  # pairs of each finding that are printed


class Pair(NamedTuple):
    """Two clips that contradict the column identity: a line of identities.csv."""

    finding: str  # "one person?" of two identities, "two people?" of one
    distance: float
    first: str
    first_identity: str
    second: str
    second_identity: str


def identities(dataset: Path, threshold: float = SAME_PERSON, merge: float | None = None, frames: int = 5) -> None:
    """Compare who the clips of a dataset are said to show, in the column identity of clips.csv, with their faces.

    Prints pairs of clips of different identities that look like one person, and pairs of one identity that look like
    two people, and writes all of them to ROOT/identities.csv. Whoever is on both sides of a split unseen makes its
    test worth less. Nothing is changed without --merge.

    Args:
        threshold: Distance of two faces' descriptors below which they look like one person; dlib's own is 0.6. Of
            very many pairs some are closer by chance: look at them.
        merge: Give identities whose clips are closer than this one name, the first by the alphabet, and say which. 0.4
            is a careful choice. Clips that are said to be one person are never taken apart.
        frames: How many frames of a clip are looked at.
    """
    if frames < 1 or threshold <= 0 or (merge is not None and merge <= 0):
        raise UsageError(f"frames={frames}, threshold={threshold:g}, merge={merge}: expected numbers above 0")
    clips = open_clips(dataset)
    faces = describe_clips(clips, frames)
    known = [clip for clip in clips if clip.name in faces]
    if not known:
        raise UserError(f"{dataset}: no clip could be looked at")
    pairs = list(compare(known, faces, threshold))
    write_pairs(dataset / "identities.csv", pairs)
    _show(pairs, len(known))
    if merge is not None:
        close = [pair for pair in compare(known, faces, merge) if pair.finding == "one person?"]
        _rewrite(dataset, joined({clip.identity for clip in clips}, close))


def describe_clips(clips: Sequence[Clip], frames: int) -> dict[str, np.ndarray]:
    """Name -> mean descriptor, (128,), of as many frames spread over the clip. Clips that cannot be read are named in
    the log and left out."""
    measured, found = MeasuredFaces(), {}
    with progress_bar() as bar:
        for clip in bar.track(clips, description="faces"):
            try:
                places = np.unique(np.linspace(0, clip.frames - 1, frames + 2)[1:-1].round().astype(int))
                reader = clip.reader()
                try:
                    pictures = np.stack([reader[int(place)] for place in places])
                finally:
                    reader.close()
                found[clip.name] = measured.descriptors(pictures, clip.landmarks[places]).mean(axis=0)
            except UserError as error:
                log.warning("%s: left out: %s", clip.name, error)
    return found


def compare(clips: Sequence[Clip], faces: dict[str, np.ndarray], threshold: float) -> Iterator[Pair]:
    """The pairs that contradict their identities."""
    for one, other in combinations(clips, 2):
        distance = float(np.linalg.norm(faces[one.name] - faces[other.name]))
        if (one.identity == other.identity) != (distance < threshold):
            finding = "two people?" if one.identity == other.identity else "one person?"
            yield Pair(finding, distance, one.name, one.identity, other.name, other.identity)


def joined(people: set[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """The new name of every identity, where the pairs of identities are one person, and so are theirs in turn."""
    name = {one: one for one in people}
    for pair in pairs:
        first, second = sorted((name[pair.first_identity], name[pair.second_identity]))
        name = {one: first if now == second else now for one, now in name.items()}
    return name


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(Pair._fields)
        writer.writerows(pair._replace(distance=round(pair.distance, 3)) for pair in _in_order(pairs))


def _in_order(pairs: Sequence[Pair]) -> list[Pair]:
    """The most striking ones first."""
    return sorted(pairs, key=lambda pair: pair.distance if pair.finding == "one person?" else 10 - pair.distance)


def _show(pairs: Sequence[Pair], clips: int) -> None:
    out = Console()
    for finding in ("one person?", "two people?"):
        some = [pair for pair in _in_order(pairs) if pair.finding == finding]
        if some:
            table = Table(finding, "", "distance", box=None, pad_edge=False)
            for pair in some[:SHOWN]:
                table.add_row(
                    _titled(pair.first, pair.first_identity),
                    _titled(pair.second, pair.second_identity),
                    f"{pair.distance:.2f}",
                )
            out.print(table)
        if len(some) > SHOWN:
            out.print(f"… and {len(some) - SHOWN} more in identities.csv")
    if not pairs:
        out.print(f"{clips} clips: faces and identities agree")


def _titled(name: str, identity: str) -> str:
    return escape(name if name == identity else f"{name} ({identity})")


def _rewrite(dataset: Path, name: dict[str, str]) -> None:
    """Enter new identities into clips.csv and say which."""
    out = Console()
    changed = {old: new for old, new in sorted(name.items()) if old != new}

    def change(rows: dict[str, ClipRow]) -> None:
        for row in list(rows.values()):
            rows[row.name] = row._replace(identity=changed.get(row.identity, row.identity))

    change_rows(dataset, Claims(dataset / CLAIMS), change)
    for old, new in changed.items():
        out.print(f"clips.csv: {old} is now {new}", soft_wrap=True, markup=False)
    if not changed:
        out.print("clips.csv: nothing to merge")
