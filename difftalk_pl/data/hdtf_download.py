"""The command `hdtf download`: HDTF's videos, as far as they still exist, by yt-dlp."""

import csv
import logging
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.data.hdtf import read_annotations
from difftalk_pl.data.sources import VIDEO_SUFFIXES
from difftalk_pl.errors import UserError
from difftalk_pl.files import replacing

log = logging.getLogger(__name__)

RETRIES = 10
NOT_GONE = re.compile(r"try again later|rate.?limit|countr|not a bot|sign in to confirm|captcha", re.IGNORECASE)
GONE = re.compile(
    r"private video|video is private|has been removed|removed by the uploader|account .*terminated|no longer available|"
    r"(does not|doesn't) exist|isn't available any ?more|HTTP Error (404|410)",
    re.IGNORECASE,
)
NOISE = re.compile(r"^(ERROR: )?(\[\S+\] )?|; please report this issue on .*|\(caused by .*")


class Download(NamedTuple):
    """A line of downloads.csv: done, gone (the site says that the video does not exist any more) or failed."""

    name: str
    url: str
    status: str
    reason: str = ""


def hdtf_download(
    annotations: Path,
    out: Path,
    only: list[str] | str | None = None,
    height: int | None = None,
    retry_gone: bool = False,
    cookies: Path | None = None,
) -> None:
    """Download HDTF's videos, best picture and sound, as OUT/NAME.mp4 or another container.

    Run the same command again to continue after an interruption and to try again what failed. OUT/downloads.csv says
    what became of each video; one that is gone is not asked for again.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        out: The folder of the videos; made, or added to.
        only: Names of sources (RD, WDA, WRA) or videos; several as [RD,KatieHill].
        height: Lines of the picture at most.
        retry_gone: Ask again for videos that were gone.
        cookies: A file of cookies for the site, if it wants a signed-in browser.
    """
    names = {only} if isinstance(only, str) else set(only or ())
    clips = [clip for clip in read_annotations(annotations) if not names or names & {clip.video, clip.source}]
    if not clips:
        raise UserError(f"{annotations}: no source or video is called {', '.join(names)}")
    options: dict[str, Any] = {
        "format_sort": [f"res:{height}"] if height else [],
        "noplaylist": True,
        **dict.fromkeys(("retries", "fragment_retries", "extractor_retries"), RETRIES),
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), lambda n: min(2.0**n, 60.0)),
        "skip_unavailable_fragments": False,
        "cookiefile": None if cookies is None else str(cookies),
    }
    if shutil.which("ffmpeg") is None:
        log.warning("ffmpeg is not installed: only files that hold both picture and sound, often small, can be had")
    out.mkdir(parents=True, exist_ok=True)
    known = _read_downloads(out / "downloads.csv")
    videos = {clip.video: clip.url for clip in clips}
    for name, url in videos.items():
        if name not in known or known[name].status != "gone" or retry_gone:
            known[name] = _download(name, url, out, options)
            with replacing(out / "downloads.csv") as file:
                csv.writer(file).writerows([Download._fields, *known.values()])
    counts = Counter(known[name].status for name in videos)
    log.info("%s: %s", out, ", ".join(f"{count} {status}" for status, count in counts.items()))
    if counts["failed"]:
        raise UserError(f"{out}: {counts['failed']} videos failed; the reasons are in downloads.csv; run it again")


def _read_downloads(path: Path) -> dict[str, Download]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: Download(**row) for row in csv.DictReader(file)}


def _download(name: str, url: str, out: Path, options: dict[str, Any]) -> Download:
    """Download one video, unless its file is there: yt-dlp names a file when it is whole, and continues parts."""
    if any((out / f"{name}{suffix}").exists() for suffix in VIDEO_SUFFIXES):
        return Download(name, url, "done")
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import YoutubeDLError
    except ImportError as error:
        raise UserError(f"hdtf download needs yt-dlp ({error}): pip install 'difftalk_pl[download]'") from error
    try:
        with YoutubeDL({**options, "outtmpl": {"default": str(out / f"{name}.%(ext)s")}}) as site:
            site.download([url])
    except YoutubeDLError as error:
        reason = NOISE.sub("", str(error).replace("\n", " "))
        gone = GONE.search(reason) and not NOT_GONE.search(reason)
        return Download(name, url, "gone" if gone else "failed", reason)
    return Download(name, url, "done")
