"""What samplers and ways to keep still do to a model's frames: one line of JSON for every setting and seed.

    python benchmarks/sampling.py --weights WEIGHTS --data ROOT --clips NAME... --syncnet JUDGE --out lines.jsonl
    python benchmarks/sampling.py --table lines.jsonl [--curve curve.png]

Lines that are there are not measured again, so that it can be stopped.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.dataset import GENERATION, ClipBatches, WindowDataset
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.evaluation.clip_scores import ClipScores
from difftalk_pl.evaluation.judge import GROUND_TRUTH, Judge, Measuring
from difftalk_pl.generation.sampler import Generator, PreviousFrames, SamplerConfig
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.weights import Weights

SHOWN = ("mouth_psnr", "sync_confidence", "sync_distance", "opening_correlation", "lmd", "jitter_landmarks",
         "jitter_pixels", "silent_motion")  # fmt: skip
BASE = SamplerConfig(name="dpm++", steps=12, reference="each")


def sweep() -> dict[str, SamplerConfig]:
    """Samplers and steps; `quality`, the longest, last."""
    pairs = [("dpm++", steps) for steps in (2, 3, 4, 8, 12, 20)]
    pairs += [("unipc", steps) for steps in (2, 3, 4, 8, 12)]
    pairs += [("ddim", steps) for steps in (10, 50, 200)]
    return {f"{name} {steps}": SamplerConfig(name=name, steps=steps) for name, steps in pairs}


def steady() -> dict[str, SamplerConfig]:
    """One thing changed at a time."""
    references = ("random", "widest", "progressive:random", "progressive:widest")
    one = {f"reference {name}": replace(BASE, reference=name) for name in references}
    return {"shared noise, reference each": BASE, "independent noise": replace(BASE, noise="independent"), **one}


def guided() -> dict[str, SamplerConfig]:
    """For a model that was trained with audio_dropout."""
    return {f"guidance {w:g}": replace(BASE, guidance=w) for w in (1.0, 1.5, 2.0, 3.0)}


SETS = {"sweep": sweep, "steady": steady, "guided": guided}


def measure(arguments: argparse.Namespace, weights: Weights, codec: LatentCodec, judge: Judge, config: SamplerConfig):
    """Means over the clips, of the model and of the true frames, and seconds a frame."""
    clips = [clip for clip in open_clips(arguments.data) if clip.name in arguments.clips]
    windows = WindowDataset(
        clips,
        GENERATION,
        mask=MaskPolicy(weights.data.mask),
        features=weights.data.features,
        reference=ReferenceRule(lenient=True, source=config.policy.source),
        seed=config.seed,
        fixed=True,
        frames_per_clip=arguments.frames,
        smoothing=tuple(weights.difftalk().config.conditioning.smoothing),
    )
    dropout = weights.config.get("audio_dropout", 0.0)
    generator = Generator(weights.difftalk(), codec, weights.schedule, config, dropout)
    frames = [(clip, len(windows.indices(number))) for number, clip in enumerate(windows.clips)]
    previous: PreviousFrames = {}
    scores, start = ClipScores(judge, frames), time.perf_counter()
    for batch in ClipBatches(windows, range(len(clips)), 25, len(clips) if config.sequential else 1):
        window = batch["window"]
        scores.add(batch, None if window is None else {"model": generator(window, previous)})
    seconds = time.perf_counter() - start
    result = scores.finish(["model"])
    if result.reasons:
        raise SystemExit(str(result.reasons))
    found = {method: result.methods[method]["overall"] for method in (GROUND_TRUTH, "model")}
    means = {method: {name: overall[name] for name in SHOWN} for method, overall in found.items()}
    return means, seconds / sum(result.frames.values())


def run(arguments: argparse.Namespace) -> None:
    weights = Weights.from_pretrained(arguments.weights)
    codec = LatentCodec(weights.codec or weights)
    judge = Judge(Measuring(None, None, arguments.syncnet, arguments.crop, True), torch.device("cpu"))
    lines = read(arguments.out) if arguments.out.exists() else []
    known = {(line["set"], line["setting"], line["seed"]) for line in lines}
    for seed in arguments.seeds:
        for name in arguments.sets:
            for setting, config in SETS[name]().items():
                if (name, setting, seed) in known:
                    continue
                seeded = replace(config, seed=seed)
                means, seconds = measure(arguments, weights, codec, judge, seeded)
                line = {"set": name, "setting": setting, "seed": seed, "config": asdict(seeded), "scores": means}
                line |= {"seconds_per_frame": seconds, "clips": arguments.clips, "frames": arguments.frames}
                with arguments.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(path: Path) -> str:
    """Means over seeds, and how far seeds are apart (deviation)."""
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for line in read(path):
        found[line["set"], line["setting"]].append(line)
    rows = [["set", "setting", "seeds", *SHOWN, "s/frame"]]
    order = [(name, setting) for name, settings in SETS.items() for setting in settings()]
    for name, setting in sorted(found, key=order.index):
        lines = found[name, setting]
        values = [[line["scores"]["model"][measure] for line in lines] for measure in SHOWN]
        cells = [_spread(one) for one in values]
        seconds = np.mean([line["seconds_per_frame"] for line in lines])
        rows.append([name, setting, str(len(lines)), *cells, f"{seconds:.3f}"])
    truth = read(path)[0]["scores"][GROUND_TRUTH]
    rows.append(["", GROUND_TRUTH, "", *(_spread([truth[measure]]) for measure in SHOWN), ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _spread(values: list[float | None]) -> str:
    """Mean ± deviation; a dash where a seed has none."""
    if None in values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def curve(path: Path, picture: Path) -> None:
    """Mouth PSNR and sync confidence over steps, one line a sampler, bars for the deviation over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    found: dict[str, dict[int, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for line in read(path):
        if line["set"] == "sweep":
            found[line["config"]["name"]][line["config"]["steps"]].append(line["scores"]["model"])
    for axis, measure in zip(axes, ("mouth_psnr", "sync_confidence")):
        for name, by_steps in found.items():
            steps = sorted(by_steps)
            values = [np.array([one[measure] for one in by_steps[each]], float) for each in steps]
            spread = [one.std(ddof=1) if len(one) > 1 else 0 for one in values]
            axis.errorbar(steps, [one.mean() for one in values], spread, label=name, marker="o", capsize=3)
        axis.set(xscale="log", xlabel="steps", ylabel=measure)
        axis.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--clips", nargs="+")
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--syncnet", type=Path)
    parser.add_argument("--crop", default="whole_frame")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["sweep", "steady"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--curve", type=Path)
    given = parser.parse_args()
    if given.table is None:
        run(given)
    else:
        print(table(given.table))
        if given.curve is not None:
            curve(given.table, given.curve)
