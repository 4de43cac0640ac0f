"""HDTF: its published annotation tables, and the commands `hdtf download` and `hdtf clips`.

Each source (RD, WDA, WRA) has tables of addresses, times, crop windows and resolutions. Names end in `.mp4` in some of
them; a video may lack its times, and a clip its window.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from difftalk_pl.data.sources import VIDEO_SUFFIXES, ClipSource, find_videos, person_of, seconds_of, write_clip_list
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop
from difftalk_pl.files import read_csv, write_csv
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.video import probe

log = logging.getLogger(__name__)

SOURCES = ("RD", "WDA", "WRA")
TABLES = ("video_url", "annotion_time", "crop_wh", "resolution")
DOWNLOADS = ("name", "url", "status", "reason")  # columns of downloads.csv; status: done or failed
RETRIES = 10

SHOWN = 12  # names of missing videos in the log


class HDTFClip(NamedTuple):
    """One clip of a video; times in seconds.

    Args:
        lines: the published resolution of the video; None if it is not known.
        window: the published square, pixels at that resolution; None if there is none.
    """

    source: str
    video: str
    number: int
    url: str
    lines: int | None
    start: float
    end: float
    window: Crop | None

    @property
    def name(self) -> str:
        """Return the name of HDTF's own file: RD_Radio1_000."""
        return f"{self.source}_{self.video}_{self.number:03d}"


def read_annotations(folder: Path) -> list[HDTFClip]:
    """Read all clips, in the order of the tables. Raises UserError naming a table that cannot be read."""
    clips = []
    for source in SOURCES:
        urls, times, crops, heights = (_read_table(folder / f"{source}_{table}.txt") for table in TABLES)
        for video, spans in times.items():
            lines = int(heights.get(video, ["0"])[0]) or None
            for number, span in enumerate(spans):
                start, end = map(seconds_of, span.split("-"))
                x, width, y, _ = map(int, crops.get(f"{video}_{number}", (0, 0, 0, 0)))
                window = Crop(x, y, width) if width else None
                clips.append(HDTFClip(source, video, number, urls[video][0], lines, start, end, window))
    return clips


def _read_table(path: Path) -> dict[str, list[str]]:
    """Read the columns after the name, by the name without its suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # WDA_video_url begins with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; give the folder with HDTF's annotation tables") from error
    rows = (line.split() for line in lines if line.strip())
    return {name.removesuffix(".mp4"): columns for name, *columns in rows}


def hdtf_download(
    annotations: Path,
    out: Path,
    only: list[str] | str | None = None,
    height: int | None = None,
    cookies: Path | None = None,
) -> None:
    """Download HDTF's videos, best picture and sound, as OUT/NAME.mp4 or another container.

    Run the same command again to continue after an interruption and to try again what failed. OUT/downloads.csv says
    what became of each video; many of them are no longer on the site.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        out: The folder of the videos; made, or added to.
        only: Names of sources (RD, WDA, WRA) or videos; several as [RD,KatieHill].
        height: Lines of the picture at most.
        cookies: A file of cookies for the site, if it wants a signed-in browser.
    """
    names = {only} if isinstance(only, str) else set(only or ())
    clips = read_annotations(annotations)
    videos = {clip.video: clip.url for clip in clips if not names or names & {clip.video, clip.source}}
    if not videos:
        raise UserError(f"{annotations}: no source or video is called {', '.join(names)}")
    options: dict[str, Any] = {
        "format_sort": [f"res:{height}"] if height else [],
        "noplaylist": True,
        **dict.fromkeys(("retries", "fragment_retries", "extractor_retries"), RETRIES),
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), lambda n: min(2.0**n, 60.0)),
        "skip_unavailable_fragments": False,
        "color": "never",
        "cookiefile": None if cookies is None else str(cookies),
    }
    out.mkdir(parents=True, exist_ok=True)
    table = {row["name"]: tuple(row.values()) for row in read_csv(out / "downloads.csv")}
    for name, url in videos.items():
        reason = _download(url, out, name, options)
        table[name] = (name, url, "failed" if reason else "done", reason)
        write_csv(out / "downloads.csv", DOWNLOADS, table.values())
    failed = [name for name in videos if table[name][2] == "failed"]
    if len(failed) == len(videos):
        raise UserError(f"{out}: no video could be downloaded; the reasons are in downloads.csv")
    if failed:
        log.warning("%s: %d of %d videos failed; the reasons are in downloads.csv", out, len(failed), len(videos))


def _download(url: str, out: Path, name: str, options: dict[str, Any]) -> str:
    """Download one video, unless its file is there; returns the reason if that fails.

    yt-dlp gives a file its name when it is whole, and continues parts.
    """
    if any((out / f"{name}{suffix}").exists() for suffix in VIDEO_SUFFIXES):
        return ""
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import YoutubeDLError
    except ImportError as error:
        raise UserError(f"hdtf download needs yt-dlp ({error}): pip install 'difftalk_pl[download]'") from error
    try:
        with YoutubeDL({**options, "outtmpl": {"default": str(out / f"{name}.%(ext)s")}}) as site:
            site.download([url])
    except YoutubeDLError as error:
        return str(error).replace("\n", " ")
    return ""


def hdtf_clips(annotations: Path, videos: Path, out: Path) -> None:
    """Write the list of HDTF's clips for prepare: spans, people and published crops of the videos that are there.

    Args:
        annotations: The folder with HDTF's published tables (RD_video_url.txt and so on).
        videos: The folder that is searched for the videos, RD_Radio1.mp4 or Radio1.mp4.
        out: The list to write, a CSV file.
    """
    clips = read_annotations(annotations)
    files = {video.stem: video for video in find_videos([videos]).values()}
    sources = [source for clip in clips if (source := _find(clip, files))]
    found = {source.name for source in sources}
    here = [clip for clip in clips if clip.name in found]
    counts = [(len({(c.source, c.video) for c in some}), len(some), _hours(some)) for some in (here, clips)]
    log.info("%d of %d videos, %d of %d clips, %.2f of %.2f h", *(n for pair in zip(*counts) for n in pair))
    if missing := list(dict.fromkeys(f"{clip.source}_{clip.video}" for clip in clips if clip.name not in found)):
        log.info("missing: %s%s", ", ".join(missing[:SHOWN]), " …" if len(missing) > SHOWN else "")
    if not sources:
        raise UserError(f"{videos}: none of HDTF's videos is there; run hdtf download first")
    write_clip_list(out, sources)


def _hours(clips: list[HDTFClip]) -> float:
    return sum(clip.end - clip.start for clip in clips) / 3600


def _find(clip: HDTFClip, files: dict[str, Path]) -> ClipSource | None:
    """Find a clip in its video, with the published crop in pixels of the file that is there."""
    video, scale = files.get(f"{clip.source}_{clip.video}") or files.get(clip.video), 1.0
    if video is None:
        return None
    with suppress(MediaError):  # an unreadable one is refused by prepare, with the reason
        scale = probe(video).height / clip.lines if clip.lines else 1.0
    crop = Crop(*(round(scale * pixels) for pixels in clip.window)) if clip.window else None
    return ClipSource(clip.name, video, clip.start, clip.end, person_of(clip.source, clip.video), crop)
