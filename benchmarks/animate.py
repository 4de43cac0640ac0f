"""What animate costs: seconds of every stage for a second of video, and the peak of memory.

    python benchmarks/animate.py --weights WEIGHTS --audio speech.wav --videos a.mp4 b.mp4 --seconds 10
    python benchmarks/animate.py --weights WEIGHTS --audio speech.wav --videos a.mp4 --seconds 10 600 --steps 1

The sound is repeated until it is long enough. Every line is a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from difftalk_pl.animate.paste import border_difference, match_colour
from difftalk_pl.data.features.windows import RATE
from difftalk_pl.media.audio import read_audio, write_wav
from difftalk_pl.media.video import probe

STAGES = ("read", "faces", "cut", "features", "load", "encode", "denoise", "decode", "blend", "mark", "write")


def child(arguments: argparse.Namespace) -> None:
    """Make one video, and print what it took as JSON."""
    from difftalk_pl.animate.pipeline import TalkingHeadPipeline
    from difftalk_pl.generation.presets import choose_sampler

    pipeline = TalkingHeadPipeline.from_pretrained(arguments.weights, device=arguments.device)
    sampler = choose_sampler("fast", steps=arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(arguments.out or Path(folder) / "out.mp4")
        video = pipeline(arguments.videos[0], arguments.audio, sampler)
        count = video.save(out)
    border = _border(pipeline(arguments.videos[0], arguments.audio, sampler, first=arguments.looked_at))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"frames": count, "seconds": video.clock.seconds, "peak": peak, "passed": video.passed} | border))


def _border(video) -> dict[str, float | bool]:
    """Colours at the blend's outline, drawn against true, and whether all pixels outside are the decoded ones."""
    before, after, equal = [], [], True
    for result, own, square in video.pasted():
        if square is None:
            continue
        place = video.order[square.frame]
        region = video.paste.region(square.mask, video.boxes[place], own.shape)
        outside = np.ones(own.shape[:2], bool)
        if region is not None:
            outside[region.rows, region.columns] = region.alpha == 0
        equal &= bool((result[outside] == own[outside]).all())
        feather = video.paste.feather
        before.append(border_difference(square.generated, square.true, square.mask, feather))
        matched = match_colour(square.generated, square.true, square.mask, feather)
        after.append(border_difference(matched, square.true, square.mask, feather))
    return {"border": float(np.mean(before)), "matched": float(np.mean(after)), "equal": equal}


def rows(arguments: argparse.Namespace) -> None:
    """A markdown table, one line a video and length."""
    sound = read_audio(arguments.audio, RATE)
    head = ["video", "size", "sound, s", "frames", *STAGES, "sum", "peak, MB", "border, levels", "outside equal"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
    for path in arguments.videos:
        for seconds in arguments.seconds:
            with tempfile.TemporaryDirectory() as folder:
                wav = Path(folder) / "sound.wav"
                write_wav(wav, np.resize(sound, round(seconds * RATE)), RATE)
                command = [
                    sys.executable,
                    __file__,
                    "--child",
                    "--weights",
                    str(arguments.weights),
                    "--audio",
                    str(wav),
                ]
                command += ["--videos", str(path), "--device", arguments.device]
                command += [] if arguments.steps is None else ["--steps", str(arguments.steps)]
                done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
            info, spent = probe(path), done["seconds"]
            cells = [path.name, f"{info.width} x {info.height}", f"{seconds:g}", str(done["frames"])]
            cells += [f"{spent.get(stage, 0) / seconds:.3f}" for stage in STAGES]
            cells += [f"{sum(spent.values()) / seconds:.2f}", f"{done['peak']:.0f}"]
            cells += [f"{done['border']:.1f} -> {done['matched']:.1f}", "yes" if done["equal"] else "NO"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--looked-at", type=float, default=1.0, help="seconds whose outline is measured")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    child(given) if given.child else rows(given)
