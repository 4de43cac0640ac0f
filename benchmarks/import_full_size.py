"""A checkpoint of the released size through `import-checkpoint`: time, memory, and that nothing changes on the way.

    python benchmarks/import_full_size.py --folder /somewhere/with/10/GB

It draws 530,152,963 weights of the denoiser, their moving average and 55,322,782 weights of the first stage, saves
them under the published names as training does, imports the file in a process of its own, and compares the outputs of
two networks on latents of 16 x 16: one built around the drawn tensors, one loaded from the imported folder.
Everything it writes is deleted at the end.
"""

import json
import logging
import shutil
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from jsonargparse import auto_cli
from torch import Tensor

from difftalk_pl.__main__ import main as difftalk
from difftalk_pl.models.autoencoder import Autoencoder
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DenoiserConfig, build_denoiser
from difftalk_pl.training.weights import read_weights
from tests.models.conftest import oracle_tensor
from tests.published import DENOISER, FIRST_STAGE, averages, first_stage_shapes, golden_state, schedule_buffers

NARROW = 8  # the key list that is at hand has this part of the full widths
CONTEXT = 128  # numbers of a context token, the same at any width
LATENT_SIDE = 16
log = logging.getLogger("difftalk_pl.benchmarks")


def run(folder: Path = Path(tempfile.gettempdir()), keep: bool = False) -> None:
    """Make, import, compare; one line of JSON at the end.

    Args:
        folder: where some 8 GB can lie for a while.
        keep: leave the files there.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="import_", dir=folder))
    try:
        checkpoint, expected = _make(work / "released.ckpt")
        figures = {"checkpoint_GB": round(checkpoint.stat().st_size / 1e9, 2)}
        figures |= _apart(_import, checkpoint, work / "talk")
        figures |= _apart(_reload, work / "talk", work / "again", expected)
        log.info("%s", json.dumps(figures))
    finally:
        if not keep:
            shutil.rmtree(work)


def full_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a denoiser's tensor at full size, from that at an eighth of it."""
    fixed = {"input_blocks.0.0.weight": {1}, "out.2.weight": {0}, "out.2.bias": {0}}.get(name, set())
    if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
        fixed = {1}
    return tuple(size if axis in fixed or axis > 1 else NARROW * size for axis, size in enumerate(shape))


def _make(path: Path) -> tuple[Path, Tensor]:
    """The checkpoint, and the noise that its averaged denoiser predicts."""
    names = {name: tuple(value.shape) for name, value in golden_state("unet_width32").items()}
    denoiser = {name: oracle_tensor(name, full_shape(name.removeprefix(DENOISER), names[name])) for name in names}
    first = {
        FIRST_STAGE + name: oracle_tensor(FIRST_STAGE + name, shape)
        for name, shape in first_stage_shapes(widths=(128, 256, 512), codes=8192).items()
    }
    last_step = {name: 0.5 * value for name, value in denoiser.items()}
    state = last_step | averages(denoiser) | golden_state("condition_nets") | first | schedule_buffers()
    log.info("%s weights of the denoiser", f"{sum(value.numel() for value in denoiser.values()):,}")
    log.info("%s weights of the first stage", f"{sum(value.numel() for value in first.values()):,}")
    torch.save({"state_dict": state, "epoch": 1, "global_step": 1000}, path)
    return path, _predict_directly(denoiser)


def _inputs() -> tuple[Tensor, Tensor, Condition]:
    generator = torch.Generator().manual_seed(0)
    z, concat, context = (
        torch.randn(1, *shape, generator=generator)
        for shape in ((3, LATENT_SIDE, LATENT_SIDE), (6, LATENT_SIDE, LATENT_SIDE), (1, CONTEXT))
    )
    return z, torch.tensor([321]), Condition(context, concat)


@torch.no_grad()
def _predict_directly(published: dict[str, Tensor]) -> Tensor:
    """Without any of the importer: default sizes, and the converter of diffusers."""
    with torch.device("meta"):
        unet = build_denoiser(DenoiserConfig())
    unet.load_state_dict(convert_ldm_unet_checkpoint(published, unet.config), strict=True, assign=True)
    z, t, condition = _inputs()
    stacked = torch.cat([z, condition.concat], dim=1)
    return unet.eval()(stacked, t, encoder_hidden_states=condition.context).sample


def _apart(work, *arguments) -> dict[str, float]:
    """Its figures from a fresh process, which starts with no memory of what came before."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _peak_gb() -> float:
    """Largest resident memory of this process so far, from Linux; held pages of mapped files count, too.

    getrusage would count what the parent held before this process started.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) * 1024 / 1e9, 2)


def _import(checkpoint: Path, out: Path) -> dict[str, float]:
    started = time.monotonic()
    assert difftalk(["import-checkpoint", "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    return {"import_seconds": round(time.monotonic() - started, 1), "import_peak_GB": _peak_gb()}


@torch.no_grad()
def _reload(folder: Path, again: Path, expected: Tensor) -> dict[str, float]:
    started = time.monotonic()
    weights = read_weights(folder)
    network = weights.difftalk()
    load_seconds = time.monotonic() - started
    difference = (network(*_inputs()) - expected).abs().max().item()
    assert difference == 0, f"the imported denoiser computes something else: {difference:.2e}"
    codec = weights.autoencoder()
    shapes = first_stage_shapes(widths=(128, 256, 512), codes=8192)
    assert sum(value.numel() for value in codec.state_dict().values()) == sum(
        torch.Size(shape).numel() for shape in shapes.values()
    )
    assert Autoencoder().config == codec.config
    figures = {"load_seconds": round(load_seconds, 1), "load_and_run_peak_GB": _peak_gb()}
    weights.save_pretrained(again)
    reloaded = read_weights(again)
    assert reloaded.hash == weights.hash and torch.equal(reloaded.difftalk()(*_inputs()), expected)
    return figures | {"largest_difference": difference}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    auto_cli(run)
