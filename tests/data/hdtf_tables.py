"""Annotation tables like HDTF's, for videos of the test's choosing."""

from pathlib import Path

from difftalk_pl.data.hdtf import SOURCES, TABLES


def write_tables(folder: Path, videos: dict[str, dict]) -> Path:
    """Write tables of videos by SOURCE/NAME: {"times": ["00:20-01:35"], "lines": 720, "windows": {0: "466 535 0 535"},
    "url": "https://…"}; all but the times may be missing."""
    folder.mkdir(exist_ok=True)
    for source in SOURCES:
        urls, times, crops, resolutions = [], [], [], []
        for place, video in videos.items():
            where, name = place.split("/")
            if where != source:
                continue
            urls.append(f"{name} {video.get('url', f'https://example.org/watch?v={name}')}")
            times.append(f"{name}.mp4 {' '.join(video['times'])}")
            resolutions += [f"{name}.mp4 {video['lines']}"] if "lines" in video else []
            crops += [f"{name}_{k}.mp4 {window}" for k, window in video.get("windows", {}).items()]
        for table, lines in zip(TABLES, (urls, times, crops, resolutions), strict=True):
            (folder / f"{source}_{table}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder
