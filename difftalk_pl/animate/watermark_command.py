"""The command `watermark`: whether videos carry the project's invisible mark, and what their metadata say."""

import json
import logging
import sys
from itertools import islice
from pathlib import Path

from difftalk_pl.animate.watermark import Reading, read_mark
from difftalk_pl.data.sources import VIDEO_SUFFIXES
from difftalk_pl.errors import UsageError, UserError
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import TAG, read_tags

log = logging.getLogger(__name__)
FPS = 25.0  # frames that are looked at in a second
LONGEST = 120  # characters of a foreign tag that are shown


def watermark(videos: list[Path], seconds: float = 10.0) -> None:
    """Say of each video whether it carries the invisible mark of a generated one, by which model, and what its metadata
    say.

    One line a video. A video without a mark is no error; of a folder, all videos in it are read.

    The mark is a note and no proof: who knows this code can remove or forge it.

    Args:
        seconds: how much of each video is read, from its start; more helps where a video is small or much compressed.
    """
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds {seconds:g}: expected more than 0")
    failed, files = 0, _files(videos)
    for path in files:
        try:
            reading = read_mark(islice(read_frames(path, FPS), max(1, round(seconds * FPS))))
            line = f"{path}: {describe(reading)}; {describe_tag(read_tags(path).get(TAG))}"
        except (UserError, OSError) as error:
            log.error("%s", error)
            failed += 1
            continue
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    if failed:
        raise UserError(f"{failed} of {len(files)} videos could not be read; the lines above say why")


def describe(reading: Reading) -> str:
    """Such as `marked, model 3f09a7, agreement 81 %, z 38.2`."""
    if not reading.found:
        return f"not marked (z {reading.z:.1f})"
    doubt = "" if reading.sure else " (unsure: some digits may be wrong)"
    return f"marked, model {reading.model}{doubt}, agreement {reading.agreement:.0%}, z {reading.z:.1f}"


def describe_tag(tag: str | None) -> str:
    """What the metadata say, in short; a tag that is not ours is shown as it is, on one line."""
    if tag is None:
        return "no tag"
    try:
        content = json.loads(tag)
    except ValueError:
        content = None
    if isinstance(content, dict) and (said := [f"{key} {content[key]}" for key in ("by", "model") if key in content]):
        return _one_line(f"tag: {', '.join(said)}")
    return _one_line(f"tag: {tag}")


def _one_line(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= LONGEST else shown[:LONGEST] + "…"


def _files(videos: list[Path]) -> list[Path]:
    """Files as they are given, in the place of a folder all videos in it."""
    files: list[Path] = []
    for path in videos:
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if one.suffix.lower() in VIDEO_SUFFIXES and one.is_file()]
            files += [one for one in inside if not one.name.startswith(".")]
        else:
            files.append(path)
    if not files:
        raise UserError(f"{', '.join(map(str, videos))}: no videos ({' '.join(sorted(VIDEO_SUFFIXES))})")
    return files
