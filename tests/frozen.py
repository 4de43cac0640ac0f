"""A small frozen TensorFlow graph with the names of DeepSpeech 0.1.0, and the network it describes in plain numpy."""

from pathlib import Path

import numpy as np
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.util.tensor_util import make_tensor_proto

CELL = "bidirectional_rnn/{}/basic_lstm_cell/{}"


def constants(arrays: dict[str, np.ndarray]) -> bytes:
    graph = GraphDef()
    graph.node.add(name="input_node", op="Placeholder")
    for name, array in arrays.items():
        value = graph.node.add(name=name, op="Const").attr["value"]
        value.tensor.CopyFrom(make_tensor_proto(array))
    return graph.SerializeToString()


def deepspeech_constants(hidden: int = 6, classes: int = 29, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights that leave activations within and beyond the clipping at 20."""
    random = np.random.default_rng(seed)
    shapes = {"1": (494, hidden), "2": (hidden, hidden), "3": (hidden, 2 * hidden)}
    shapes |= {"5": (2 * hidden, hidden), "6": (hidden, classes)}
    arrays = {f"h{n}": random.standard_normal(shape) for n, shape in shapes.items()}
    arrays |= {f"b{n}": random.standard_normal(shape[1]) for n, shape in shapes.items()}
    for way in ("fw", "bw"):
        arrays[CELL.format(way, "kernel")] = random.standard_normal((3 * hidden, 4 * hidden)) * 0.2
        arrays[CELL.format(way, "bias")] = random.standard_normal(4 * hidden)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def write_deepspeech(path: Path, hidden: int = 6, classes: int = 29, seed: int = 0) -> Path:
    arrays = deepspeech_constants(hidden, classes, seed)
    path.write_bytes(constants({"transpose/perm": np.arange(3, dtype=np.int32), **arrays}))
    return path


def deepspeech(arrays: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """(S, 494) -> (S, classes), step by step in float64, with TensorFlow's gates i, j, f, o."""

    def dense(x, n):
        return np.minimum(np.maximum(x @ arrays[f"h{n}"] + arrays[f"b{n}"], 0), 20)

    def cell(x, way):
        kernel, bias = arrays[CELL.format(way, "kernel")], arrays[CELL.format(way, "bias")]
        h = c = np.zeros(len(bias) // 4)
        for row in x:
            i, j, f, o = np.split(np.concatenate([row, h]) @ kernel + bias, 4)
            c = c / (1 + np.exp(-(f + 1))) + np.tanh(j) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
            yield h

    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = dense(dense(dense(inputs.astype(np.float64), 1), 2), 3)
    both = np.concatenate([np.array([*cell(x, "fw")]), np.array([*cell(x[::-1], "bw")])[::-1]], axis=1)
    return dense(both, 5) @ arrays["h6"] + arrays["b6"]
