"""Measure what prepare costs: processor seconds for each second of video.

    python benchmarks/prepare.py VIDEOS --beside OLDER_CHECKOUT --repeat 3

Processor time of the whole process is counted, not the clock's, so that other work on the machine disturbs less.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def measure(checkout: Path, videos: list[Path], size: int) -> tuple[float, float]:
    """Prepare the videos with one worker; return processor seconds and seconds of prepared video."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as root:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            sys.executable,
            "-m",
            "difftalk_pl",
            "prepare",
            *map(str, videos),
            "--out",
            root,
            "--size",
            str(size),
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=environment, cwd=checkout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Path(root, "clips.csv").open(newline="", encoding="utf-8") as file:
            frames = sum(int(row["frames"]) for row in csv.DictReader(file))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, frames / 25


def main() -> None:
    """Print a line for each checkout; the fastest of several runs counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", help="files, or folders of videos")
    parser.add_argument("--beside", type=Path, help="an older checkout")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    videos = [path.resolve() for path in given.videos]
    for checkout in filter(None, (given.beside, Path(__file__).resolve().parent.parent)):
        runs = [measure(checkout, videos, given.size) for _ in range(given.repeat)]
        processor, seconds = min(runs)
        print(f"{checkout}: {processor:.1f} s for {seconds:.1f} s of video, {seconds / processor:.2f} x real time")


if __name__ == "__main__":
    main()
