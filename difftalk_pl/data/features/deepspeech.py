"""DeepSpeech 0.1.0 without TensorFlow: the speech features of the paper, from the frozen graph that Mozilla published.

It lives with the data because it never learns here. The network gives 29 numbers every 20 ms: scores before softmax of
space, the letters, the apostrophe and, last, the blank of CTC.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from difftalk_pl.data.features.frozen_graph import Graph, read_graph
from difftalk_pl.data.features.kinds import FeatureModel, SpeechModels
from difftalk_pl.data.features.windows import FPS, RATE, STEPS_PER_FRAME
from difftalk_pl.errors import UserError
from difftalk_pl.models.pretrained import file_hash

COEFFICIENTS = 26
MFCC_WINDOW, MFCC_STEP = 400, 160  # samples: 25 ms every 10 ms
PIECE = 6000  # frames of MFCC that are made at once: a minute
CONTEXT = 9  # steps either side that the network sees beside a step
INPUTS = (2 * CONTEXT + 1) * COEFFICIENTS  # 494
HIDDEN = 2048  # as published
CLASSES = 29
CLIP = 20.0  # upper bound of the dense layers' activations
FORGET_BIAS = 1.0  # TensorFlow's cell adds it at run time; it is not in the file
GATES = 4
CHUNK = 3000  # steps, of all clips together, that pass the layers at once: a minute of one clip
DENSE = ("1", "2", "3", "5", "6")  # numbers of the dense layers; the fourth is recurrent
CELL = "bidirectional_rnn/{}/basic_lstm_cell/{}"
LATER = ("lstm_fused_cell", "cudnn_lstm", "previous_state_")  # beginnings of names in the graphs of 0.2 to 0.9
REMEDY = (
    "DeepSpeech 0.1.0 is models/output_graph.pb in deepspeech-0.1.0-models.tar.gz "
    "of release v0.1.0 of Mozilla's DeepSpeech on GitHub"
)


class DeepSpeech(nn.Module):
    """Three dense layers, one LSTM in each direction over the whole clip, two dense layers.

    The dense layers act step by step and an LSTM hands on its state, so a clip passes in chunks and the scores are
    those of the whole. Only what one LSTM gives is kept over all steps, (B, S, hidden); the first layers run for each.

    Args:
        hidden: width; the third layer and the LSTM's output are twice as wide.
        classes: scores a step.
    """

    def __init__(self, hidden: int = HIDDEN, classes: int = CLASSES) -> None:
        super().__init__()
        self.dense1 = nn.Linear(INPUTS, hidden)
        self.dense2 = nn.Linear(hidden, hidden)
        self.dense3 = nn.Linear(hidden, 2 * hidden)
        self.ahead = nn.LSTM(2 * hidden, hidden, batch_first=True)
        self.back = nn.LSTM(2 * hidden, hidden, batch_first=True)
        self.dense5 = nn.Linear(2 * hidden, hidden)
        self.dense6 = nn.Linear(hidden, classes)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores of whole clips.

        Args:
            inputs: (B, S, 494), from `deepspeech_input`.
            lengths: (B,) steps of each clip where they differ; what follows them does not matter.

        Returns:
            (B, S, classes), no softmax.
        """
        from_end, scores, state = self._from_end(inputs, lengths), [], None
        for rows in _chunks(inputs):
            from_start, state = self.ahead(self._heard(inputs[:, rows]), state)
            both = torch.cat([from_start, from_end[:, rows]], dim=-1)
            scores.append(self.dense6(self.dense5(both).clamp_(0, CLIP)))
        return torch.cat(scores, dim=1)

    def _from_end(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """What the LSTM gives that runs from each clip's last step to its first, (B, S, hidden).

        It reads the clips mirrored. What follows a clip is mirrored in its own place and so is read after it.
        """
        clips, steps = inputs.shape[:2]
        device = inputs.device
        ends = torch.full((clips,), steps, device=device) if lengths is None else lengths.to(device)
        mirrored = (ends[:, None] - 1 - torch.arange(steps, device=device)) % steps
        clip = torch.arange(clips, device=device)[:, None]
        given, state = inputs.new_empty(clips, steps, self.back.hidden_size), None
        for rows in _chunks(inputs):
            read = mirrored[:, rows]
            given[clip, read], state = self.back(self._heard(inputs[clip, read]), state)
        return given

    def _heard(self, x: Tensor) -> Tensor:
        """(B, S, 494) -> (B, S, 2 * hidden), the first three layers."""
        for dense in (self.dense1, self.dense2, self.dense3):
            x = dense(x).clamp_(0, CLIP)
        return x


class DeepSpeechFeatures:
    """The feature kind: sound to scores, as AD-NeRF and the paper use them.

    Unlike MFCC's, a step is not centred on its time: the 25 ms that DeepSpeech hears begin there. Published models
    were trained so.
    """

    name = "deepspeech"

    def __init__(self, path: Path, device: torch.device) -> None:
        self.network = load_deepspeech(path).to(device)
        self.channels = self.network.dense6.out_features
        self.model = FeatureModel(path.name, file_hash(path), self.channels)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) int16 at 16 kHz -> (2T, 29) float32."""
        return self.batch([samples])[0]

    def batch(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Several sounds in one pass, each as if it were alone: (N,) int16 at 16 kHz -> (2T, 29) float32.

        AD-NeRF interpolates the scores to an exact 50 Hz. They come at 50 Hz, and at least one a step of a whole
        frame, so that its interpolation changes nothing and only the surplus of a broken frame is cut off here.
        """
        steps = [len(samples) * FPS // RATE * STEPS_PER_FRAME for samples in sounds]
        scores = iter(self._scores([samples for samples, count in zip(sounds, steps, strict=True) if count]))
        nothing = np.zeros((0, self.channels), np.float32)
        return [next(scores)[:count] if count else nothing for count in steps]

    @torch.inference_mode()
    def _scores(self, sounds: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """(S, 29) of each sound; all are padded to the longest."""
        if not sounds:
            return iter(())
        device = self.network.dense1.weight.device
        inputs = [torch.from_numpy(deepspeech_input(samples)) for samples in sounds]
        lengths = torch.tensor([len(rows) for rows in inputs])
        scores = self.network(pad_sequence(inputs, batch_first=True).to(device), lengths).cpu()
        return (rows[:count].numpy() for rows, count in zip(scores, lengths.tolist(), strict=True))


def open_kind(kind: str, models: SpeechModels) -> DeepSpeechFeatures:
    """The kind from what the command line gave."""
    if models.deepspeech is None:
        raise UserError(f"features {kind} need --deepspeech FILE; {REMEDY}")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return DeepSpeechFeatures(models.deepspeech, torch.device(automatic if models.device == "auto" else models.device))


def deepspeech_input(samples: np.ndarray) -> np.ndarray:
    """What the network hears: 26 MFCC every 20 ms, with those of the 9 steps before and after.

    Mean and deviation are one number each over the whole clip, the zeros beyond its ends included; so a clip's
    features depend on all of it.

    Args:
        samples: (N,) int16 at 16 kHz.

    Returns:
        (S, 494) float32, oldest step first.
    """
    padded = np.pad(coefficients(samples)[::2], ((CONTEXT, CONTEXT), (0, 0)))
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * CONTEXT + 1, axis=0)
    mean, deviation = around.mean(), around.std()
    normal = ((padded - mean) / deviation).astype(np.float32)
    around = np.lib.stride_tricks.sliding_window_view(normal, 2 * CONTEXT + 1, axis=0)
    return np.ascontiguousarray(rearrange(around, "s c w -> s (w c)"))


def coefficients(samples: np.ndarray) -> np.ndarray:
    """The MFCC of a sound, (N,) -> (F, 26) float64, a piece after the other: whole, they took 40 times its memory.

    A frame's coefficients depend on its own samples and, through the pre-emphasis, on the one before. So a piece begins
    a frame early, and that frame is dropped.
    """
    from python_speech_features import mfcc

    frames = 1 + max(0, math.ceil((len(samples) - MFCC_WINDOW) / MFCC_STEP))
    pieces = []
    for first in range(0, frames, PIECE):
        start, end = max(first - 1, 0) * MFCC_STEP, (first + PIECE - 1) * MFCC_STEP + MFCC_WINDOW
        pieces.append(mfcc(samples[start:end], RATE, numcep=COEFFICIENTS)[min(first, 1) :])
    return np.concatenate(pieces)


def _chunks(inputs: Tensor) -> Iterator[slice]:
    """Ranges of steps, so that a pass holds CHUNK of them however many clips there are."""
    clips, steps = inputs.shape[:2]
    size = max(CHUNK // clips, 1)
    return (slice(start, start + size) for start in range(0, steps, size))


def load_deepspeech(path: Path) -> DeepSpeech:
    """The network of a frozen graph, ready for use.

    Raises:
        UserError: not DeepSpeech 0.1.0; says what it is instead.
    """
    graph = read_graph(path, REMEDY)
    constants = _expected_constants(path, graph)
    state = {}
    for number in DENSE:
        state[f"dense{number}.weight"] = torch.from_numpy(np.array(constants[f"h{number}"].T, order="C"))
        state[f"dense{number}.bias"] = torch.from_numpy(np.array(constants[f"b{number}"]))
    for direction, lstm in (("fw", "ahead"), ("bw", "back")):
        cell = [constants[CELL.format(direction, part)] for part in ("kernel", "bias")]
        state |= {f"{lstm}.{name}_l0": value for name, value in _lstm_weights(*cell).items()}
    with torch.device("meta"):
        network = DeepSpeech(len(constants["b1"]), len(constants["b6"]))
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _lstm_weights(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """TensorFlow's cell in PyTorch's terms.

    Args:
        kernel: (inputs + hidden, 4 * hidden), columns in the order of `bias`.
        bias: (4 * hidden,), gates i, j (the candidate), f, o; PyTorch's order is i, f, g (the candidate), o.
    """
    hidden = len(bias) // GATES
    i, j, f, o = rearrange(kernel, "r (g h) -> g h r", g=GATES)
    weight = torch.from_numpy(np.concatenate([i, f, j, o]))
    i, j, f, o = rearrange(bias, "(g h) -> g h", g=GATES)
    return {
        "weight_ih": weight[:, :-hidden].contiguous(),
        "weight_hh": weight[:, -hidden:].contiguous(),
        "bias_ih": torch.from_numpy(np.concatenate([i, f + np.float32(FORGET_BIAS), j, o])),
        "bias_hh": torch.zeros(GATES * hidden),
    }


def _expected_constants(path: Path, graph: Graph) -> dict[str, np.ndarray]:
    """The constants of DeepSpeech 0.1.0, all there and of shapes that fit each other."""
    if later := sorted(name for name in graph.nodes if name.startswith(LATER)):
        raise UserError(
            f"{path}: DeepSpeech 0.2 or later: its graph has {later[0]}, "
            f"expected {CELL.format('fw', 'kernel')}; {REMEDY}"
        )
    hidden = len(graph.constants["b1"]) if graph.constants.get("b1", np.zeros(())).ndim == 1 else HIDDEN
    classes = graph.constants["b6"].size if "b6" in graph.constants else CLASSES
    shapes = _shapes(hidden, classes)
    if missing := [name for name in shapes if name not in graph.constants]:
        raise UserError(f"{path}: not DeepSpeech 0.1.0, or truncated: no constant {', '.join(missing)}; {REMEDY}")
    for name, shape in shapes.items():
        if graph.constants[name].shape != shape:
            raise UserError(f"{path}: {name} is {graph.constants[name].shape}, expected {shape}; {REMEDY}")
    return {name: graph.constants[name] for name in shapes}


def _shapes(hidden: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the constants of a network of this width."""
    widths = {
        "1": (INPUTS, hidden),
        "2": (hidden, hidden),
        "3": (hidden, 2 * hidden),
        "5": (2 * hidden, hidden),
        "6": (hidden, classes),
    }
    shapes: dict[str, tuple[int, ...]] = {f"h{number}": width for number, width in widths.items()}
    shapes |= {f"b{number}": width[1:] for number, width in widths.items()}
    for direction in ("fw", "bw"):
        shapes[CELL.format(direction, "kernel")] = (3 * hidden, GATES * hidden)
        shapes[CELL.format(direction, "bias")] = (GATES * hidden,)
    return shapes
