"""What prepare costs: processor milliseconds of every stage for a frame, and seconds of video per second and core.

    python benchmarks/prepare.py VIDEOS
    python benchmarks/prepare.py VIDEOS --beside OLDER_CHECKOUT --size 256 --features mfcc --repeat 3

Every video is prepared in a process of its own that runs on one core and has dlib's models loaded. Processor time is
counted, not the clock's, so that other work on the machine disturbs less. The threads of decoder and encoder have
columns of their own, by pass over the video: in the first one only the decoder has any. The same functions, by name,
are measured in both checkouts.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

PACKAGE, FPS = "difftalk_pl", 25
STAGES = {  # functions by their place, as one checkout or another has them
    "hash": ("data.source:sha256", "data.source:file_hash"),
    "sound": ("data.source:read_audio", "data.source:probe"),
    "decode": ("data.video:timeline", "data.media.video:timeline"),
    "convert, cut, resize": (
        *("data.colour:ToRGB.__call__", "data.colour:ToLuma.__call__"),
        *("data.media.colour:ToRGB.__call__", "data.media.colour:ToLuma.__call__"),
        *("data.source:cut_frame", "data.squares:CutSquare.__call__", "data.faces.squares:CutSquare.__call__"),
    ),
    "detect": ("data.faces:FaceTracker._detect", "data.faces.tracking:FaceTracker._detect"),
    "landmarks": ("data.faces:landmarks_in", "data.dlib_faces:landmarks_in", "data.faces.dlib_faces:landmarks_in"),
    "track": ("data.source:track_faces",),
    "smooth, crop": ("data.source:fill_gaps", "data.source:smooth", "data.source:crop_square"),
    "encode": ("data.video:encode", "data.media.video:encode"),
    "features": ("data.audio:MFCC.__call__",),
    "sums": ("data.clips:write_sums",),
    "write": ("data.source:write_clip",),
}
ROOMS = ("faces", "dlib_faces", "faces.dlib_faces")
MODELS = tuple(f"data.{room}:{name}" for room in ROOMS for name in ("_detector", "_predictor"))
COLUMNS = (*STAGES, "other", "threads, pass 1", "threads, pass 2")


def child(arguments: argparse.Namespace) -> None:
    """Prepare one video with whatever checkout PYTHONPATH names, and print what it took as JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for place in MODELS:  # a second, once in a process
        if (found := _find(place)) is not None:
            getattr(*found)()
    clock = _clock()
    for stage, places in STAGES.items():
        for place in places:
            _time(place, stage, clock)
    source = importlib.import_module(f"{PACKAGE}.data.source")
    with tempfile.TemporaryDirectory() as folder:
        job = _job(source, arguments.videos[0], Path(folder), arguments)
        with clock("other"):
            outcome = source.run_job(job, lambda done, total: None)
        print(json.dumps({"frames": outcome.row.frames, "reason": outcome.row.reason, "seconds": clock.seconds}))


def _clock() -> Any:
    """A StageClock that counts processor time: this thread's by stage, that of all others by pass."""
    stage_clock: Any = importlib.import_module(f"{PACKAGE}.timing").StageClock

    class ProcessorClock(stage_clock):
        _since: tuple[float, float]

        def _charge(self) -> None:
            now = (time.thread_time(), time.process_time())
            if self._open:
                own, all_threads = (new - old for new, old in zip(now, self._since, strict=True))
                threads = "threads, pass 2" if "write" in self._open else "threads, pass 1"
                for stage, seconds in ((self._open[-1], own), (threads, all_threads - own)):
                    self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            self._since = now

    return ProcessorClock()


def _find(place: str) -> tuple[Any, str] | None:
    """What holds a function, and its name there; None where this checkout has none such."""
    module, _, path = place.partition(":")
    *classes, name = path.split(".")
    try:
        holder: Any = importlib.import_module(f"{PACKAGE}.{module}")
        for part in classes:
            holder = getattr(holder, part)
    except (ImportError, AttributeError):
        return None
    return (holder, name) if hasattr(holder, name) else None


def _time(place: str, stage: str, clock: Any) -> None:
    """Charge a function, or what its generator takes, to a stage."""
    if (found := _find(place)) is None:
        return
    holder, name = found
    function = getattr(holder, name)

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        if isgeneratorfunction(function):
            return clock.each(stage, function(*args, **kwargs))
        with clock(stage):
            return function(*args, **kwargs)

    setattr(holder, name, timed)


def _job(source: Any, video: Path, root: Path, arguments: argparse.Namespace) -> Any:
    """A job as this checkout wants it: older ones know whole videos only."""
    (root / "clips").mkdir()
    settings, kinds = source.Settings(size=arguments.size), tuple(arguments.features)
    if "piece" in source.Job._fields:
        return source.Job(source.Piece(video.stem, video), root, settings, kinds)
    return source.Job(video, root, video.stem, settings, kinds)


def measure(video: Path, checkout: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The fastest of several runs."""
    command = [sys.executable, __file__, str(video), "--child", "--size", str(arguments.size)]
    command += ["--features", *arguments.features]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(arguments.repeat):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=checkout)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: sum(run["seconds"].values()))


def rows(arguments: argparse.Namespace) -> None:
    """A markdown table, one line a video and checkout, and a sum of all."""
    checkouts = [path.resolve() for path in (arguments.beside, Path(__file__).parent.parent) if path is not None]
    videos = [file for path in arguments.videos for file in (sorted(path.glob("*.mp4")) if path.is_dir() else [path])]
    head = ["video", "checkout", "frames", *COLUMNS, "sum, ms a frame", "x real time", "ratio"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
    sums: dict[Path, Counter[str]] = {checkout: Counter() for checkout in checkouts}
    for video in videos:
        before = None
        for checkout in checkouts:
            run = measure(video.resolve(), checkout, arguments)
            if run["reason"]:
                print(f"| {video.name} | {checkout.name} | refused: {run['reason']} |" + " |" * (len(head) - 3))
                continue
            sums[checkout].update(run["seconds"], frames=run["frames"])
            before = _row(video.name, checkout, Counter(run["seconds"], frames=run["frames"]), before)
    before = None
    for checkout in checkouts:
        before = _row("**all**", checkout, sums[checkout], before)


def _row(name: str, checkout: Path, spent: Counter[str], before: float | None) -> float:
    """Prints a line; returns seconds of video a second."""
    frames, seconds = spent["frames"], sum(spent[column] for column in COLUMNS)
    speed = frames / FPS / seconds
    cells = [name, checkout.name, str(frames), *(f"{1000 * spent[column] / frames:.2f}" for column in COLUMNS)]
    cells += [f"{1000 * seconds / frames:.2f}", f"{speed:.2f}", "" if before is None else f"{speed / before:.2f}"]
    print("| " + " | ".join(cells) + " |", flush=True)
    return speed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", help="files, or folders of mp4 files")
    parser.add_argument("--beside", type=Path, help="an older checkout")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--features", nargs="*", default=["mfcc"])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    child(given) if given.child else rows(given)
