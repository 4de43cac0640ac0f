"""What animate costs: seconds for a second of video and the peak of memory; how well the drawn mouth fits its frame.

    python benchmarks/animate.py --weights WEIGHTS --audio speech.wav --videos '[a.mp4, b.mp4]' --seconds '[10]'
    python benchmarks/animate.py --weights WEIGHTS --audio speech.wav --videos '[a.mp4]' --seconds '[10, 600]' --steps 1

The sound is repeated until it is long enough. Every line is a process of its own. `border` is the mean difference of
colours in the band within the mask's outline, drawn against true, in levels, before and after they are matched;
`outside equal` compares all pixels outside of the blend with those of the decoded frame.
"""

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from scipy.ndimage import binary_erosion

from difftalk_pl.animate.paste import FEATHER, blend_region, match_colour
from difftalk_pl.animate.pipeline import TalkingHeadPipeline, TalkingVideo
from difftalk_pl.generation.sampler import choose_sampler
from difftalk_pl.media.audio import RATE, read_audio, write_wav
from difftalk_pl.media.video import probe


def run(
    weights: Path, audio: Path, videos: list[Path], seconds: list[float], steps: int | None = None, device: str = "auto"
) -> None:
    """Print a markdown table, one line a video and length."""
    columns = ["video", "size", "sound, s", "frames", "s/s", "peak, MB", "border, levels", "outside equal"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    sound = read_audio(audio, RATE)
    for path in videos:
        for length in seconds:
            with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
                wav = Path(folder) / "sound.wav"
                write_wav(wav, np.resize(sound, round(length * RATE)), RATE)
                cells = pool.apply(measure, (weights, path, wav, Path(folder) / "out.mp4", steps, device))
            info = probe(path)
            print(f"| {path.name} | {info.width} x {info.height} | {length:g} | {' | '.join(cells)} |", flush=True)


def measure(weights: Path, video: Path, audio: Path, out: Path, steps: int | None, device: str) -> list[str]:
    """Make one video, then look at its first second."""
    pipeline, sampler = TalkingHeadPipeline.from_pretrained(weights, device=device), choose_sampler(steps=steps)
    start = time.perf_counter()
    talking = pipeline(video, audio, sampler)
    count = talking.save(out)
    spent = (time.perf_counter() - start) / len(talking) * talking.fps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [str(count), f"{spent:.2f}", f"{peak:.0f}", *border(pipeline(video, audio, sampler, seconds=1))]


def border(video: TalkingVideo) -> list[str]:
    """Colours at the mask's outline, drawn against true, and whether the pixels outside are the decoded ones."""
    before, after, equal = [], [], True
    for place, (result, own, square) in zip(video.order, video.pasted(range(len(video)))):
        if square is None:
            continue
        rows, columns, alpha = blend_region(square.mask, video.path.boxes[place], own.shape)
        outside = np.ones(own.shape[:2], bool)
        outside[rows, columns] = alpha == 0
        equal &= bool((result[outside] == own[outside]).all())
        band = square.mask & ~binary_erosion(square.mask, iterations=max(round(FEATHER * len(square.mask)), 1))
        matched = match_colour(square.generated, square.true, square.mask)
        for scores, drawn in ((before, square.generated), (after, matched)):
            scores.append(np.abs(drawn[band].astype(float) - square.true[band]).mean())
    return [f"{np.mean(before):.1f} -> {np.mean(after):.1f}", "yes" if equal else "NO"]


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
