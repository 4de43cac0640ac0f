"""The command `split`: who trains, validates and tests, as files that can be published and used again."""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.hdtf import SOURCES, TABLES, read_annotations
from difftalk_pl.data.sources import ClipSource, person_of, read_clip_list, recording_of
from difftalk_pl.data.splits import rank
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.files import replacing, write_json
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.video import probe

log = logging.getLogger(__name__)

SIDES = ("train", "val", "test")
PAPER_VIDEOS = 100
HDTF_NAME = re.compile(rf"(?P<source>{'|'.join(SOURCES)})_(?P<video>.+)_\d{{3}}")
MARK = "# split"  # how the files begin
REST = "other"  # clips of no source of HDTF's


class Entry(NamedTuple):
    """A clip to be divided; `seconds` is 0 where they are not known."""

    name: str
    identity: str
    seconds: float

    @property
    def source(self) -> str:
        found = HDTF_NAME.fullmatch(self.name)
        return found["source"] if found else REST

    @property
    def video(self) -> str:
        found = HDTF_NAME.fullmatch(self.name)
        return recording_of(found["video"]) if found else self.name


def split(
    whole: Path,
    rule: Literal["identity", "paper100"],
    out: Path,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
) -> None:
    """Write OUT/train.txt, val.txt and test.txt, the names of clips, one a line, and split.json, what made them.

    The rule identity puts every person on one side, and takes the same share of the people of each source of HDTF. A
    person's place depends on the seed and the name, so that videos that are gone move hardly anybody. The rule paper100
    takes 100 videos at random for training and the rest for test, as the paper does; people may be on both sides.

    Use them by --data.split.train OUT/train.txt and so on; clips that a dataset does not have are passed over.

    Args:
        rule: identity or paper100.
        out: Folder of the files.
        seed: Of the draw.
        val: Share of the people, for the rule identity.
        test: The same.
    """
    if min(val, test) < 0 or val + test >= 1:
        raise UsageError(f"val={val:g}, test={test:g}: expected shares of the people that leave some for training")
    entries = read_entries(whole)
    sides = by_identity(entries, seed, val, test) if rule == "identity" else by_paper(entries, seed)
    if empty := [side for side in SIDES if not sides[side] and (side != "val" or (rule == "identity" and val > 0))]:
        raise UserError(f"{whole}: too few people for {' and '.join(empty)}; change val and test")
    asked = f"{whole.absolute().name} --rule {rule} --seed {seed}"
    asked += f" --val {val:g} --test {test:g}" if rule == "identity" else ""
    write_split(out, sides, f"{MARK} {asked}: {len(entries)} clips")
    shares = {"val": val, "test": test} if rule == "identity" else {}
    write_json(out / "split.json", {"rule": rule, "seed": seed, **shares, "sides": _counts(sides)})
    _show(sides)


def read_entries(whole: Path) -> list[Entry]:
    """The clips of a prepared dataset, a list of clips, or HDTF's tables. Raises UserError for anything else."""
    if (whole / "dataset.json").exists():
        return [Entry(clip.name, clip.identity, clip.frames / FPS) for clip in open_clips(whole)]
    if whole.is_file():
        return [Entry(piece.name, piece.identity, _seconds(piece)) for piece in read_clip_list(whole)]
    if (whole / f"{SOURCES[0]}_{TABLES['times']}.txt").exists():
        clips = [clip for video in read_annotations(whole) for clip in video.clips]
        return [Entry(clip.name, person_of(clip.source, clip.video), clip.seconds) for clip in clips]
    raise UserError(f"{whole}: expected a prepared dataset, a list of clips (CSV), or the folder of HDTF's tables")


def by_identity(entries: Sequence[Entry], seed: int, val: float, test: float) -> dict[str, list[Entry]]:
    """Sides without shared people, each with its share of the people of every source."""
    people: dict[str, list[str]] = defaultdict(list)
    for identity, source in {entry.identity: entry.source for entry in reversed(entries)}.items():
        people[source].append(identity)
    side_of: dict[str, str] = {}
    for some in people.values():
        order = sorted(some, key=lambda identity: rank(seed, identity))
        tests, vals = round(test * len(order)), round((test + val) * len(order))
        side_of |= {one: "test" if k < tests else "val" if k < vals else "train" for k, one in enumerate(order)}
    return {side: [entry for entry in entries if side_of[entry.identity] == side] for side in SIDES}


def by_paper(entries: Sequence[Entry], seed: int) -> dict[str, list[Entry]]:
    """100 videos to train with, the rest for test; a video's clips stay together."""
    videos = sorted({entry.video for entry in entries}, key=lambda video: rank(seed, video))
    if len(videos) <= PAPER_VIDEOS:
        raise UserError(f"paper100: {len(videos)} videos, more than {PAPER_VIDEOS} are needed; take the rule identity")
    chosen = set(videos[:PAPER_VIDEOS])
    sides = {"train": [entry for entry in entries if entry.video in chosen], "val": []}
    sides["test"] = [entry for entry in entries if entry.video not in chosen]
    shared = {entry.identity for entry in sides["train"]} & {entry.identity for entry in sides["test"]}
    log.warning(
        "paper100: %d people are in train and in test, since videos are drawn and not people; set "
        "data.split.share_people true and data.split.val 0",
        len(shared),
    )
    return sides


def write_split(out: Path, sides: dict[str, list[Entry]], head: str) -> None:
    """Raises UserError where a list is there that was not made here."""
    paths = {side: out / f"{side}.txt" for side in SIDES}
    for path in paths.values():
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            raise UserError(f"{path} is there already and was not made by split; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    for side, path in paths.items():
        odd = [entry.name for entry in sides[side] if entry.name != entry.name.strip() or entry.name.startswith("#")]
        if odd:
            raise UserError(f"{path}: clip {odd[0]!r} cannot be listed: its name begins with #, or blanks surround it")
        with replacing(path) as file:
            file.writelines(f"{line}\n" for line in [head, *sorted(entry.name for entry in sides[side])])


def _seconds(piece: ClipSource) -> float:
    if piece.end is not None:
        return piece.end - piece.start
    try:
        return max(probe(piece.video).duration - piece.start, 0)
    except MediaError:
        return 0


def _counts(sides: dict[str, list[Entry]]) -> dict[str, Any]:
    """Of each side: clips, people, and seconds by source."""
    counts = {}
    for side, entries in sides.items():
        seconds: dict[str, float] = defaultdict(float)
        for entry in entries:
            seconds[entry.source] += round(entry.seconds, 2)
        people = {entry.identity for entry in entries}
        counts[side] = {"clips": len(entries), "people": len(people), "seconds": dict(sorted(seconds.items()))}
    return counts


def _show(sides: dict[str, list[Entry]]) -> None:
    counts = _counts(sides)
    sources = sorted({source for count in counts.values() for source in count["seconds"]})
    table = Table(
        "side", "clips", "people", "minutes", *(f"of {source}" for source in sources), box=None, pad_edge=False
    )
    for side, count in counts.items():
        minutes = [count["seconds"].get(source, 0) / 60 for source in sources]
        table.add_row(
            side, str(count["clips"]), str(count["people"]), f"{sum(minutes):.1f}", *(f"{m:.1f}" for m in minutes)
        )
    Console().print(table)
