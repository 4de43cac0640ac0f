"""Features of wav2vec 2.0 and HuBERT, by the optional package transformers.

Both hear 400 samples every 320 (25 ms every 20 ms) and then look at the whole sound. Half a window of silence is set
before the sound, so that step s is centred on s * 20 ms.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from difftalk_pl.data.features.kinds import FeatureModel, SpeechModels
from difftalk_pl.data.features.windows import FPS, RATE, STEPS_PER_FRAME
from difftalk_pl.errors import UserError

STEP = RATE // (FPS * STEPS_PER_FRAME)  # 320 samples
CLASSES = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel"}
EXAMPLES = {"wav2vec2": "facebook/wav2vec2-base-960h", "hubert": "facebook/hubert-base-ls960"}
VARIANCE_FLOOR = 1e-7  # of the models' own preprocessing, so that silence can be divided
ONLY_IN_TRAINING = "masked_spec_embed"  # a weight that some files lack
CHUNK_STEPS, CONTEXT_STEPS = 1000, 250  # 20 s at once, and 5 s either side that are heard and thrown away


class SpeechModelFeatures:
    """The feature kind: one layer's output for every step.

    A sound of up to 30 s is heard whole. A longer one is heard in chunks of 20 s with 5 s of context either side, so
    that memory stays bounded; a step then differs from what the whole sound would give, because attention reaches over
    all of it, and so does the first normalisation of the base models. In random networks and two minutes of noise the
    mean difference was 0.01 % of the features' deviation, 0.3 % for base models. Both were trained on pieces of at most
    half a minute.
    """

    def __init__(self, kind: str, model: str, layer: int | None, device: torch.device) -> None:
        self.name = kind
        self.network = _load(kind, model).to(device)
        config: Any = self.network.config
        self.layer = config.num_hidden_layers if layer is None else layer
        if not 0 <= self.layer <= config.num_hidden_layers:
            raise UserError(f"--speech-layer {layer}: {model} has layers 0 to {config.num_hidden_layers}")
        self.window = _window(model, config.conv_kernel, config.conv_stride)
        self.normalize = _normalizes(model)
        self.channels = config.hidden_size
        self.chunk, self.context = CHUNK_STEPS, CONTEXT_STEPS
        named = f"{Path(model).name if Path(model).is_dir() else model}, layer {self.layer}"
        self.model = FeatureModel(named, self._hash(), self.channels)

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) int16 at 16 kHz -> (2T, C) float32."""
        steps = len(samples) * FPS // RATE * STEPS_PER_FRAME
        if steps == 0:
            return np.zeros((0, self.channels), np.float32)
        sound = samples.astype(np.float32) / -np.iinfo(np.int16).min
        if self.normalize:
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + VARIANCE_FLOOR)
        before = self.window // 2
        behind = max(0, STEP * (steps - 1) + self.window - before - len(sound))
        padded = torch.from_numpy(np.pad(sound, (before, behind))).to(self.network.device)  # type: ignore[arg-type]
        return np.concatenate(list(self._chunks(padded, steps)))

    def _chunks(self, padded: Tensor, steps: int) -> Iterator[np.ndarray]:
        """Rows of one chunk after the other; a step's window begins at STEP times its number."""
        size = steps if steps <= self.chunk + 2 * self.context else self.chunk
        for start in range(0, steps, size):
            first, end = max(0, start - self.context), min(steps, start + size + self.context)
            heard = padded[None, STEP * first : None if end == steps else STEP * (end - 1) + self.window]
            rows = self._states(heard)[0, start - first : min(start + size, steps) - first]
            yield rows.cpu().numpy()

    def _states(self, heard: Tensor) -> Tensor:
        """(1, N) samples -> (1, S, C). The last layer's output as the model gives it, normalised where it does so."""
        if self.layer == self.network.config.num_hidden_layers:  # type: ignore[union-attr]
            return self.network(heard).last_hidden_state
        return self.network(heard, output_hidden_states=True).hidden_states[self.layer]

    def _hash(self) -> str:
        """Of all that shapes the features but the sound: the same for a folder and the hub's copy of it."""
        settings = {"layer": self.layer, "normalize": self.normalize, "chunk": CHUNK_STEPS, "context": CONTEXT_STEPS}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def open_kind(kind: str, models: SpeechModels) -> SpeechModelFeatures:
    """The kind from what the command line gave."""
    if models.speech_model is None:
        raise UserError(
            f"features {kind} need --speech-model: the folder of a model, or its name on the hub, {EXAMPLES[kind]}"
        )
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if models.device == "auto" else models.device)
    return SpeechModelFeatures(kind, models.speech_model, models.speech_layer, device)


def _load(kind: str, model: str) -> nn.Module:
    """The network. Weights come as safetensors, or by torch.load with weights_only: nothing is unpickled."""
    transformers = _transformers(kind)
    try:
        config = transformers.AutoConfig.from_pretrained(model)
        if config.model_type != kind:
            raise UserError(f"--speech-model {model}: a {config.model_type}, expected a {kind}, as {EXAMPLES[kind]}")
        network, report = getattr(transformers, CLASSES[kind]).from_pretrained(
            model, weights_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"--speech-model {model}: cannot be loaded ({str(error).strip().splitlines()[0]}); give the folder of a "
            f"downloaded model (config.json, model.safetensors), or with a network its hub name, as {EXAMPLES[kind]}"
        ) from error
    if missing := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])} - {ONLY_IN_TRAINING}):
        raise UserError(f"--speech-model {model}: no fitting weights for {missing[0]} and {len(missing) - 1} more")
    return network.eval().requires_grad_(False)


def _transformers(kind: str) -> Any:
    """The optional package, told to report by errors alone."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"features {kind} need the package transformers: "
            'pip install --constraint constraints.txt --editable ".[transformers]"'
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _normalizes(model: str) -> bool:
    """Whether the model wants zero mean and unit variance; what it was trained with says so, and most do."""
    import transformers

    try:
        extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(model)
    except OSError:
        return True
    if extractor.sampling_rate != RATE:
        raise UserError(f"--speech-model {model}: hears {extractor.sampling_rate} Hz, expected {RATE}")
    return extractor.do_normalize


def _window(model: str, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that a step hears. Raises UserError where steps are not 20 ms apart."""
    window, stride = 1, 1
    for kernel, by in zip(kernels, strides, strict=True):
        window += (kernel - 1) * stride
        stride *= by
    if stride != STEP:
        raise UserError(f"--speech-model {model}: a step every {stride} samples, expected {STEP}")
    return window
