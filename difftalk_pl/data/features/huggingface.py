"""The feature kinds wav2vec2 and hubert, by the optional package transformers.

Both networks take 25 ms every 20 ms and then attend over the whole sound. Half a window of silence is set before the
sound, so that step s is centred on s * 20 ms.
"""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from difftalk_pl.data.features.kinds import FeatureKind, FeatureModel, SpeechModels
from difftalk_pl.data.features.windows import RATE, STEP
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError

EXAMPLES = {"wav2vec2": "facebook/wav2vec2-base-960h", "hubert": "facebook/hubert-base-ls960"}
WINDOW = 400  # samples that a step takes
ONLY_IN_TRAINING = "masked_spec_embed"  # a weight that some files lack
CHUNK, CONTEXT = 1000, 250  # 20 s at once, and 5 s before and after that are computed and dropped


class SpeechNetwork:
    """One layer's output for every step, in chunks with context, so that memory stays bounded.

    In random networks a step then differs by 0.01 % of the features' deviation, 0.3 % for base models.
    """

    def __init__(self, kind: str, model: str, layer: int | None, device: torch.device) -> None:
        network, self.extractor = _load(kind, model)
        self.network, self.last = network.to(device), network.config.num_hidden_layers
        self.layer = self.last if layer is None else layer
        if not 0 <= self.layer <= self.last:
            raise UserError(f"--speech_layer {layer}: {model} has layers 0 to {self.last}")

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (2T, C) of samples (N,) int16 at 16 kHz; a step's window begins at STEP * its number."""
        steps, rows = len(samples) // (2 * STEP) * 2, []
        sound = self.extractor(samples.astype(np.float32) / 2**15, sampling_rate=RATE).input_values[0]
        after = max(0, STEP * (steps - 1) + WINDOW // 2 - len(sound))
        padded = torch.from_numpy(np.pad(sound, (WINDOW // 2, after)))[None].to(self.network.device)
        for start in range(0, steps, CHUNK):
            first, end = max(0, start - CONTEXT), min(steps, start + CHUNK + CONTEXT)
            part = padded[:, STEP * first : None if end == steps else STEP * (end - 1) + WINDOW]
            output = self.network(part, output_hidden_states=True)
            # The last layer's output is normalised where the model does so
            states = output.last_hidden_state if self.layer == self.last else output.hidden_states[self.layer]
            rows.append(states[0, start - first : min(start + CHUNK, steps) - first].cpu().numpy())
        return np.concatenate(rows)

    def hash(self) -> str:
        """Hash all that shapes the features but the sound: the same for a folder and the hub's copy of it."""
        digest = hashlib.sha256(repr((self.layer, self.extractor.do_normalize, CHUNK, CONTEXT)).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def open_kind(kind: str, models: SpeechModels) -> FeatureKind:
    """Open the kind. Raises UserError if its network is missing or does not fit."""
    if (model := models.speech_model) is None:
        raise UserError(f"features {kind} need --speech_model: a model's folder or hub name, {EXAMPLES[kind]}")
    compute = SpeechNetwork(kind, model, models.speech_layer, choose_device(models.device))
    name = f"{Path(model).name if Path(model).is_dir() else model}, layer {compute.layer}"
    return FeatureKind(kind, compute.network.config.hidden_size, compute, FeatureModel(name, compute.hash()))


def _load(kind: str, model: str) -> tuple[Any, Any]:
    """Load the network and its feature extractor, which scales the sound; weights are not unpickled."""
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
    if missing := sorted({*report["missing_keys"]} - {ONLY_IN_TRAINING}):
        raise UserError(f"--speech_model {model}: no fitting weights for {missing[0]} and {len(missing) - 1} more")
    try:
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(model)
    except OSError:  # no such file in the folder; most models were trained with sound that is normalised, the default
        extractor = transformers.Wav2Vec2FeatureExtractor()
    return network.eval().requires_grad_(False), extractor
