"""The feature kind deepspeech: DeepSpeech 0.1.0, which the paper uses, from Mozilla's frozen graph without TensorFlow.

It gives 29 numbers every 20 ms: scores before the softmax of space, letters, apostrophe and, last, CTC's blank.
"""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from difftalk_pl.data.features.kinds import COEFFICIENTS, FeatureKind, FeatureModel, SpeechModels, coefficients
from difftalk_pl.device import choose_device
from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash

MFCC_STEP = 160  # samples: 10 ms
CONTEXT = 9  # steps before and after that the network takes beside a step
INPUTS = (2 * CONTEXT + 1) * COEFFICIENTS  # 494
CHUNK = 1000  # steps: 20 s
CLIP = 20.0  # upper bound of the dense layers' activations
FORGET_BIAS = 1.0  # TensorFlow's cell adds it at run time; it is not in the file
CELL = "bidirectional_rnn/{}/basic_lstm_cell/{}"
REMEDY = (
    "DeepSpeech 0.1.0 is models/output_graph.pb in deepspeech-0.1.0-models.tar.gz "
    "of release v0.1.0 of Mozilla's DeepSpeech on GitHub"
)


class DeepSpeech(nn.Module):
    """Three dense layers, one LSTM in each direction over the whole clip, two dense layers.

    The third layer and the LSTM's output are 2 * hidden wide. A clip passes in chunks, the first layers once for each
    direction, so that only the input and one direction's output are kept whole: 30 MB a minute.
    """

    def __init__(self, hidden: int = 2048, classes: int = 29) -> None:
        super().__init__()
        self.dense1 = nn.Linear(INPUTS, hidden)
        self.dense2 = nn.Linear(hidden, hidden)
        self.dense3 = nn.Linear(hidden, 2 * hidden)
        self.fw, self.bw = (nn.LSTM(2 * hidden, hidden, batch_first=True) for _ in range(2))
        self.dense5 = nn.Linear(2 * hidden, hidden)
        self.dense6 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, (B, S, classes), no softmax, of whole clips (B, S, 494) from `deepspeech_input`."""
        chunks, ahead, scores, state = x.split(CHUNK, dim=1), [], [], None
        for chunk in chunks:
            output, state = self.fw(self._first_layers(chunk), state)
            ahead.append(output)
        state = None
        for chunk, output in zip(reversed(chunks), reversed(ahead)):
            back, state = self.bw(self._first_layers(chunk).flip(1), state)
            scores.append(self.dense6(self.dense5(torch.cat([output, back.flip(1)], 2)).clamp_(0, CLIP)))
        return torch.cat(scores[::-1], 1)

    def _first_layers(self, x: Tensor) -> Tensor:
        for layer in (self.dense1, self.dense2, self.dense3):
            x = layer(x).clamp_(0, CLIP)
        return x


def open_kind(kind: str, models: SpeechModels) -> FeatureKind:
    """Open DeepSpeech's scores as features. Raises UserError if there is no graph of DeepSpeech 0.1.0.

    Unlike MFCC's, a step is not centred on its time: its 25 ms begin there. AD-NeRF interpolates the scores to 50 Hz;
    they come at 50 Hz, so that this changes nothing.
    """
    if (path := models.deepspeech) is None:
        raise UserError(f"features {kind} need --deepspeech FILE; {REMEDY}")
    device = choose_device(models.device)
    network = load_deepspeech(path).to(device)

    @torch.inference_mode()
    def compute(samples: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(deepspeech_input(samples)).to(device)[None])[0].cpu().numpy()

    return FeatureKind(kind, network.dense6.out_features, compute, FeatureModel(path.name, file_hash(path)))


def deepspeech_input(samples: np.ndarray) -> np.ndarray:
    """Compute the network's input: 26 MFCC every 20 ms, with those of the 9 steps before and after, oldest first.

    (N,) int16 at 16 kHz -> (S, 494) float32. Mean and deviation are one number each over the whole clip, the zeros
    beyond its ends included.
    """
    padded = np.pad(coefficients(samples, MFCC_STEP)[::2], ((CONTEXT, CONTEXT), (0, 0)))
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * CONTEXT + 1, axis=0)
    normal = ((padded - around.mean()) / around.std()).astype(np.float32)
    around = np.lib.stride_tricks.sliding_window_view(normal, 2 * CONTEXT + 1, axis=0)
    return np.ascontiguousarray(rearrange(around, "s c w -> s (w c)"))


def load_deepspeech(path: Path) -> DeepSpeech:
    """Load the network of a frozen graph. Raises UserError if it is not DeepSpeech 0.1.0."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.util.tensor_util import make_ndarray

    try:
        nodes = GraphDef.FromString(path.read_bytes()).node
        constants = {node.name: make_ndarray(node.attr["value"].tensor) for node in nodes if node.op == "Const"}
        state = {f"dense{n}.weight": torch.from_numpy(constants[f"h{n}"]).T.contiguous() for n in "12356"}
        state |= {f"dense{n}.bias": torch.from_numpy(constants[f"b{n}"]) for n in "12356"}
        for direction in ("fw", "bw"):
            kernel, bias = (constants[CELL.format(direction, part)] for part in ("kernel", "bias"))
            state |= {f"{direction}.{name}_l0": value for name, value in _lstm_weights(kernel, bias).items()}
        with torch.device("meta"):
            network = DeepSpeech(len(constants["b1"]), len(constants["b6"]))
        network.load_state_dict(state, assign=True)
    except (OSError, DecodeError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not DeepSpeech 0.1.0 ({type(error).__name__}: {error}); {REMEDY}") from error
    return network.eval().requires_grad_(False)


def _lstm_weights(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """Convert TensorFlow's cell: kernel (inputs + hidden, 4 * hidden), bias (4 * hidden,).

    Its gates are i, j (the candidate), f, o; PyTorch's are i, f, g (the candidate), o.
    """
    i, j, f, o = rearrange(np.concatenate([kernel, bias[None]]), "r (g h) -> g h r", g=4)
    weight, hidden = torch.from_numpy(np.concatenate([i, f, j, o])), len(i)
    forget = torch.zeros(4, hidden)
    forget[1] = FORGET_BIAS
    return {
        "weight_ih": weight[:, : -hidden - 1].contiguous(),
        "weight_hh": weight[:, -hidden - 1 : -1].contiguous(),
        "bias_ih": weight[:, -1] + forget.flatten(),
        "bias_hh": torch.zeros(4 * hidden),
    }
