"""Frozen TensorFlow graphs, written from the protobuf definitions, and the cell that they describe, in plain numpy."""

from pathlib import Path

import numpy as np

CELL = "bidirectional_rnn/{}/basic_lstm_cell/{}"


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative sizes take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def attribute(key: str, value: bytes) -> bytes:
    return message(5, message(1, key.encode()) + message(2, value))


def node(name: str, op: str, *attributes: bytes) -> bytes:
    return message(1, message(1, name.encode()) + message(2, op.encode()) + b"".join(attributes))


def tensor(shape: tuple[int, ...], *content: bytes, dtype: int = 1) -> bytes:
    sizes = b"".join(message(2, number(1, size)) for size in shape)
    return number(1, dtype) + message(2, sizes) + b"".join(content)


def constant(name: str, proto: bytes) -> bytes:
    return node(name, "Const", attribute("dtype", number(6, 1)), attribute("value", message(8, proto)))


def constants(arrays: dict[str, np.ndarray]) -> bytes:
    return b"".join(
        constant(name, tensor(array.shape, message(4, array.astype("<f4").tobytes()))) for name, array in arrays.items()
    )


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
    """A frozen graph with the names of DeepSpeech 0.1.0, small."""
    shape = attribute("shape", message(7, message(2, number(1, -1)) + message(2, number(1, 494))))
    inputs = node("input_node", "Placeholder", attribute("dtype", number(6, 1)), shape)
    ints = constant("transpose/perm", tensor((3,), message(4, np.arange(3, dtype="<i4").tobytes()), dtype=3))
    path.write_bytes(inputs + ints + constants(deepspeech_constants(hidden, classes, seed)) + node("logits", "Reshape"))
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
