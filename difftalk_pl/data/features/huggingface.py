"""The feature kinds wav2vec2 and hubert, by the optional package transformers.

Both networks take 25 ms every 20 ms and then attend over the whole sound. Half a window of silence is set before the
sound, so that step s is centred on s * 20 ms.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from difftalk_pl.data.features.kinds import FeatureKind, FeatureModel, SpeechModels
from difftalk_pl.data.features.windows import STEP
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError

EXAMPLES = {"wav2vec2": "facebook/wav2vec2-base-960h", "hubert": "facebook/hubert-base-ls960"}
WINDOW = 400  # samples that a step takes
VARIANCE_FLOOR = 1e-7  # of the models' own preprocessing
ONLY_IN_TRAINING = "masked_spec_embed"  # a weight that some files lack
CHUNK_STEPS, CONTEXT_STEPS = 1000, 250  # 20 s at once, and 5 s before and after that are computed and dropped


class SpeechNetwork:
    """One layer's output for every step.

    A sound of up to 30 s passes whole. A longer one passes in chunks of 20 s with 5 s of context, so that memory stays
    bounded; in random networks a step then differs by 0.01 % of the features' deviation, 0.3 % for base models.
    """

    chunk, context = CHUNK_STEPS, CONTEXT_STEPS

    def __init__(self, kind: str, model: str, layer: int | None, device: torch.device) -> None:
        network, self.normalize = _load(kind, model)
        self.network, self.last = network.to(device), network.config.num_hidden_layers
        self.layer = self.last if layer is None else layer
        if not 0 <= self.layer <= self.last:
            raise UserError(f"--speech_layer {layer}: {model} has layers 0 to {self.last}")

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (2T, C) of samples (N,) int16 at 16 kHz."""
        sound, steps = samples.astype(np.float32) / 2**15, len(samples) // (2 * STEP) * 2
        if self.normalize:
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + VARIANCE_FLOOR)
        after = max(0, STEP * (steps - 1) + WINDOW // 2 - len(sound))
        padded = torch.from_numpy(np.pad(sound, (WINDOW // 2, after))).to(self.network.device)
        return np.concatenate([rows.cpu().numpy() for rows in self._chunks(padded, steps)])

    def _chunks(self, padded: Tensor, steps: int) -> Iterator[Tensor]:
        """Yield the rows of one chunk after the other; a step's window begins at STEP times its number."""
        size = steps if steps <= self.chunk + 2 * self.context else self.chunk
        for start in range(0, steps, size):
            first, end = max(0, start - self.context), min(steps, start + size + self.context)
            part = padded[None, STEP * first : None if end == steps else STEP * (end - 1) + WINDOW]
            yield self._states(part)[0, start - first : min(start + size, steps) - first]

    def _states(self, sound: Tensor) -> Tensor:
        """(1, N) samples -> (1, S, C). The last layer's output is normalised where the model does so."""
        if self.layer == self.last:
            return self.network(sound).last_hidden_state
        return self.network(sound, output_hidden_states=True).hidden_states[self.layer]

    def hash(self) -> str:
        """Hash all that shapes the features but the sound: the same for a folder and the hub's copy of it."""
        settings = {"layer": self.layer, "normalize": self.normalize, "chunk": CHUNK_STEPS, "context": CONTEXT_STEPS}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def open_kind(kind: str, models: SpeechModels) -> FeatureKind:
    """Open the kind. Raises UserError if its network is missing or does not fit."""
    if (model := models.speech_model) is None:
        raise UserError(f"features {kind} need --speech_model: a model's folder or hub name, {EXAMPLES[kind]}")
    compute = SpeechNetwork(kind, model, models.speech_layer, choose_device(models.device))
    name, channels = Path(model).name if Path(model).is_dir() else model, compute.network.config.hidden_size
    return FeatureKind(
        kind, channels, compute, FeatureModel(f"{name}, layer {compute.layer}", compute.hash(), channels)
    )


def _load(kind: str, model: str) -> tuple[Any, bool]:
    """Load the network, and whether it takes audio of zero mean and unit variance; weights are not unpickled."""
    try:
        import transformers
    except ImportError as error:
        install = 'pip install --constraint constraints.txt --editable ".[transformers]"'
        raise UserError(f"features {kind} need the package transformers: {install}") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options = {"weights_only": True, "dtype": torch.float32, "output_loading_info": True}
    try:
        config = transformers.AutoConfig.from_pretrained(model)
        if config.model_type != kind:
            raise UserError(f"--speech_model {model}: a {config.model_type}, expected a {kind}, as {EXAMPLES[kind]}")
        network, report = transformers.AutoModel.from_pretrained(model, config=config, **options)
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"--speech_model {model}: cannot be loaded ({str(error).strip().splitlines()[0]}); give the folder of a "
            f"downloaded model (config.json, model.safetensors) or, with a network, its hub name, as {EXAMPLES[kind]}"
        ) from error
    if missing := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])} - {ONLY_IN_TRAINING}):
        raise UserError(f"--speech_model {model}: no fitting weights for {missing[0]} and {len(missing) - 1} more")
    try:
        normalize = transformers.Wav2Vec2FeatureExtractor.from_pretrained(model).do_normalize
    except OSError:  # no such file in the folder; most models were trained so
        normalize = True
    return network.eval().requires_grad_(False), normalize
