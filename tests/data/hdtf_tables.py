"""Annotation tables like HDTF's, for videos of the test's choosing."""

from pathlib import Path

from difftalk_pl.data.hdtf import SOURCES, TABLES


def write_tables(folder: Path, videos: dict[str, dict]) -> Path:
    """Write tables of videos by SOURCE/NAME: {"times": ["00:20-01:35"], "lines": 720, "windows": {0: "466 535 0 535"},
    "url": "https://…"}; all but the times may be missing."""
    folder.mkdir(exist_ok=True)
    for source in SOURCES:
        lines: dict[str, list[str]] = {key: [] for key in TABLES}
        for place, video in videos.items():
            where, name = place.split("/")
            if where != source:
                continue
            lines["url"].append(f"{name} {video.get('url', f'https://example.org/watch?v={name}')}")
            lines["times"].append(f"{name}.mp4 {' '.join(video['times'])}")
            lines["lines"] += [f"{name}.mp4 {video['lines']}"] if "lines" in video else []
            lines["crop"] += [f"{name}_{k}.mp4 {window}" for k, window in video.get("windows", {}).items()]
        for key, table in TABLES.items():
            (folder / f"{source}_{table}.txt").write_text("".join(f"{line}\n" for line in lines[key]))
    return folder
