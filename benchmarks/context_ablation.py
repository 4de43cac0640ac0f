"""`context: single` beside `context: tokens`: what each costs, and which learns the mouth faster.

    python benchmarks/context_ablation.py cost
    python benchmarks/context_ablation.py train --data data/demo \
        --autoencoder runs/demo/autoencoder/checkpoints/last.ckpt --val '[synthetic_904]' --test '[synthetic_900]' \
        --out runs/context --marks '[300,600,1200]' --seeds '[0,1,2]'
    python benchmarks/context_ablation.py cut --data data/real --out data/real_parts
    python benchmarks/context_ablation.py table --out runs/context

`cut` divides long clips in time, so that people can be tested on seconds that were not trained on. `train` goes on
where it was stopped, with the marks it began with. Every variant is trained with the same data, seeds, noise and rate;
it is tested at every mark, and once more after as many steps as fit into the time that `single` takes for the last
mark. That is by the ratio of forward and backward passes; optimizer, averaging and loading cost all alike and are left
out, which is a little against the slower one.
"""

import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
import yaml
from jsonargparse import auto_cli
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from difftalk_pl.__main__ import main as difftalk
from difftalk_pl.data.clips import (
    SAMPLES_PER_FRAME,
    create_dataset,
    open_clips,
    read_dataset,
    write_clip,
    write_index,
)
from difftalk_pl.data.features.kinds import MFCC
from difftalk_pl.models.conditioning import ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig, DiffTalk, DiffTalkConfig

VARIANTS = {
    "single": {"context": "single"},
    "tokens": {"context": "tokens", "audio_tokens": "steps"},
    "frame_tokens": {"context": "tokens", "audio_tokens": "frames"},
}
SMALL = DenoiserConfig((36, 72, 72), 1, attention_levels=(False, True, True), heads=(3, 6, 6), norm_num_groups=12)
SIZES = {"demo": (SMALL, 16), "released": (DenoiserConfig(), 64)}  # denoiser and side of its latents
COLUMNS = ("mouth_psnr", "opening_correlation")
EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def build(size: str, variant: str) -> DiffTalk:
    conditioning = ConditioningConfig(audio_channels=29, landmark_scale=4.0, landmark_centre=0.5, **VARIANTS[variant])
    return DiffTalk(DiffTalkConfig(SIZES[size][0], conditioning))


def step(model: DiffTalk, batch: int, side: int) -> torch.Tensor:
    z = torch.ones(batch, 3, side, side)
    condition = model.condition(torch.ones(batch, 8, 16, 29), torch.ones(batch, 39, 2), z, z)
    return model(z, torch.full((batch,), 500), condition).square().mean()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def cost(rounds: int = 40, batch: int = 32) -> None:
    """Parameters, operations of one frame at both sizes, and the time of a training step at the demo's size.

    Args:
        rounds: training steps of every variant, taken in turns.
        batch: windows a step.
    """
    print("| variant | size | tokens | conditioning | denoiser | GFLOP a frame, forward |\n|" + " --- |" * 6)
    for size, (_, side) in SIZES.items():
        for variant in VARIANTS:
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                model = build(size, variant)
                condition = model.condition(
                    torch.ones(1, 8, 16, 29), torch.ones(1, 39, 2), *(torch.ones(1, 3, side, side),) * 2
                )
                step(model, 1, side)
            numbers = (
                f"{condition.context.shape[1]} | {parameters(model.conditioning):,} | {parameters(model.denoiser):,}"
            )
            print(f"| {variant} | {size} | {numbers} | {counter.get_total_flops() / 1e9:.3f} |")
    seconds = time_steps(rounds, batch)
    base = statistics.median(seconds["single"])
    for variant, times in seconds.items():
        median = statistics.median(times)
        print(f"{variant}: {1000 * median:.0f} ms a training step of {batch}, {median / base:.3f} of single")


def time_steps(rounds: int, batch: int, variants: tuple[str, ...] = tuple(VARIANTS)) -> dict[str, list[float]]:
    """Seconds of training steps at the demo's size, the variants in turns so that other load hits all alike."""
    models = {variant: build("demo", variant) for variant in variants}
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for variant, model in models.items():
            started = time.perf_counter()
            step(model, batch, SIZES["demo"][1]).backward()
            model.zero_grad()
            seconds[variant].append(time.perf_counter() - started)
    return seconds


def train(
    data: Path,
    autoencoder: Path,
    out: Path,
    val: list[str],
    test: list[str],
    marks: tuple[int, ...] = (300, 600, 1200),
    seeds: tuple[int, ...] = (0, 1, 2),
    variants: tuple[str, ...] = ("single", "tokens"),
    test_frames: int = 60,
    rate: float = 1e-3,
) -> None:
    """Train and test all variants, then print the table.

    Args:
        data: a prepared dataset with latents of the autoencoder.
        autoencoder: the frozen stage 1.
        out: the folder of the runs.
        val: clips whose noise error is watched.
        test: clips that are generated and measured.
        marks: steps at which a variant is tested.
        seeds: of weights, order and noise.
        variants: names of experiments/ablations/context_NAME.yaml.
        test_frames: of each clip.
        rate: learning rate, constant after 100 steps.
    """
    seconds = time_steps(30, 32, tuple({"single": 0, **dict.fromkeys(variants)}))
    ratio = {name: statistics.median(times) / statistics.median(seconds["single"]) for name, times in seconds.items()}
    for seed in seeds:
        for variant in variants:
            over = settings(data, autoencoder, val, test, test_frames, rate, seed)
            run = out / f"{variant}_{seed}"
            run.mkdir(parents=True, exist_ok=True)
            (run / "over.yaml").write_text(yaml.safe_dump(over))
            if not (run / "marks.json").exists():  # a second call must not measure another ratio
                equal_time = round(max(marks) / ratio[variant])
                (run / "marks.json").write_text(json.dumps(sorted({*marks, equal_time})))
            for mark in json.loads((run / "marks.json").read_text()):
                if not (run / f"results_{mark}.json").exists():
                    reach(run, variant, mark)
    table(out)


def settings(data: Path, autoencoder: Path, val: list, test: list, test_frames: int, rate: float, seed: int) -> dict:
    """What all variants share, over the demo's experiment."""
    optimisation = {"learning_rate": rate, "decay": "constant", "warmup_steps": 100}
    return {
        "seed_everything": seed,
        "model": {
            "init_args": {
                "autoencoder": str(autoencoder),
                "init_from": None,
                "seed": seed,
                "optimisation": optimisation,
            }
        },
        "data": {
            "root": str(data),
            "seed": seed,
            "test_frames": test_frames,
            "split": {"val": val, "test": test},
            "loading": {"batch_size": 32, "workers": 1},
        },
        "trainer": {"val_check_interval": 100, "max_time": None, "enable_progress_bar": False, "logger": None},
    }


def reach(run: Path, variant: str, mark: int) -> None:
    """Train on to `mark` steps and measure there."""
    common = [
        *("-c", str(EXPERIMENTS / "demo" / "diffusion.yaml"), "-c", str(run / "over.yaml")),
        *("-c", str(EXPERIMENTS / "ablations" / f"context_{variant}.yaml"), f"--run={run}"),
        *("--trainer.logger+=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={run}"),
    ]
    for command, extra in (("fit", [f"--trainer.max_steps={mark}"]), ("test", [])):
        if difftalk([command, *common, *extra]):
            raise SystemExit(1)
    (run / "results.json").rename(run / f"results_{mark}.json")


def cut(data: Path, out: Path, share: float = 0.8, longest: int = 1000) -> None:
    """Every clip of a prepared dataset anew, long ones as NAME_first and NAME_last, which count as two people.

    Args:
        data: a prepared dataset.
        out: the dataset to make.
        share: of a long clip's frames that goes to its first part.
        longest: clips of fewer frames stay whole.
    """
    create_dataset(out, read_dataset(data).size)
    for clip in open_clips(data):
        edge, reader = round(share * clip.frames), clip.reader()
        parts = (
            {"_first": (0, edge), "_last": (edge, clip.frames)} if clip.frames >= longest else {"": (0, clip.frames)}
        )
        for suffix, (start, end) in parts.items():
            name = clip.name + suffix
            write_clip(
                out,
                name,
                frames=(reader[frame] for frame in range(start, end)),
                audio=clip.audio()[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME],
                landmarks=clip.landmarks[start:end],
                features=[MFCC],
                info={"source": {"path": str(clip.folder), "frames": [start, end]}},
            )
    write_index(out)


def table(out: Path) -> None:
    """Mean and deviation over the seeds, from the results in the runs' folders; * marks rows of equal time.

    Args:
        out: the folder that `train` was given.
    """
    scores: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for path in sorted(out.glob("*_*/results_*.json")):
        methods = json.loads(path.read_text())["methods"]
        variant, mark = path.parent.name.rpartition("_")[0], int(path.stem.rpartition("_")[2])
        values = [methods[method]["overall"][name] for method in ("model", "shuffled audio") for name in COLUMNS]
        scores[variant, mark].append(values)
    heads = [f"{name}, {method}" for method in ("right sound", "shuffled") for name in COLUMNS]
    print("| context | steps | seeds | " + " | ".join(heads) + " |\n|" + " --- |" * (3 + len(heads)))
    shared = {mark for variant, mark in scores if variant == "single"}
    for (variant, mark), rows in sorted(scores.items(), key=lambda item: (item[0][1], item[0][0])):
        cells = [spread(column) for column in zip(*rows, strict=True)]
        print(f"| {variant} | {mark}{'' if mark in shared else ' *'} | {len(rows)} | " + " | ".join(cells) + " |")


def spread(values: tuple[float, ...]) -> str:
    """Mean ± deviation; of how many, where some are undefined."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{deviation}" + (f" ({len(known)} defined)" if len(known) < len(values) else "")


if __name__ == "__main__":
    auto_cli([cost, cut, train, table], as_positional=False)
