"""The Hugging Face hub: the card that it shows of a folder, and folders from there."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

FILES = ["*.json", "*.safetensors"]  # all that is read of a repository

TITLES = {
    "autoencoder": "VQ autoencoder (stage 1 of DiffTalk)",
    "diffusion": "DiffTalk, diffusion model (stage 2)",
    "syncnet": "SyncNet, a judge of lip sync",
}
NETWORKS = {"autoencoder": "autoencoder", "diffusion": "difftalk", "syncnet": "syncnet"}
COMMANDS = {
    "autoencoder": "python -m difftalk_pl cache-latents --data DATA --autoencoder FOLDER",
    "diffusion": "python -m difftalk_pl animate --checkpoint FOLDER --video person.mp4 --audio speech.wav --out o.mp4",
    "syncnet": "python -m difftalk_pl score video.mp4 --reference true.mp4 --measuring.syncnet FOLDER",
}
MARK = "library_name: difftalk_pl"
CARD = """---
library_name: difftalk_pl
tags:
- talking-head
- difftalk
- {stage}
---

# {title}

Weights `{hash}` for difftalk_pl.{origin}

| part | parameters |
| --- | --- |
{parameters}

| setting | value |
| --- | --- |
{settings}

`model.safetensors` holds the tensors, `config.json` the sizes{inside}.

    {command}

```python
from difftalk_pl.training.weights import Weights

weights = Weights.from_pretrained("FOLDER")  # or OWNER/NAME, where the folder was pushed to the hub
network = weights.{network}()
```
"""


def model_card(stage: str, config: Mapping[str, Any], parameters: Mapping[str, int], digest: str, origin: str) -> str:
    """What the weights are, their sizes and hash, and how to load them.

    Args:
        config: of the stage, plain values.
        parameters: numbers of weights, by part.
        origin: one line on what they were made from; may be empty.
    """
    return CARD.format(
        stage=stage,
        title=TITLES[stage],
        hash=digest,
        origin=f" Made from: {origin}." if origin else "",
        parameters="\n".join(f"| {part} | {number:,} |" for part, number in parameters.items()),
        settings="\n".join(f"| {name} | {value} |" for name, value in _flat(config)),
        inside=", `autoencoder/` the same of the first stage" if stage == "diffusion" else "",
        command=COMMANDS[stage],
        network=NETWORKS[stage],
    )


def write_card(folder: Path, card: str) -> None:
    """As the folder's README.md, in the place of an older card; a README that somebody wrote is kept."""
    readme = folder / "README.md"
    if readme.exists() and MARK not in readme.read_text(encoding="utf-8", errors="replace"):
        log.info("%s: is no model card, and is kept as it is", readme)
    else:
        readme.write_text(card, encoding="utf-8")


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, Any]] = []
    for name, value in config.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows


def download(name: str, revision: str | None) -> Path:
    """The files of a hub repository, from its cache where they are there."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=FILES)
    except (OSError, ValueError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: neither a folder or file here nor a repository of the hub ({cause})") from error
    return Path(found)
