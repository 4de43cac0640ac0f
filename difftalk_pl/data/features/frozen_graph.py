"""Read the constants of a frozen TensorFlow graph from the protobuf wire format, without TensorFlow.

The fields that are read, from TensorFlow's graph.proto, node_def.proto, attr_value.proto and tensor.proto:
GraphDef.node 1; NodeDef.name 1, .op 2, .attr 5 (a map: key 1, value 2); AttrValue.tensor 8; TensorProto.dtype 1,
.tensor_shape 2, .tensor_content 4, .float_val 5; TensorShapeProto.dim 2; Dim.size 1.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DT_FLOAT = 1


def read_constants(path: Path) -> dict[str, np.ndarray]:
    """Return the float constants of a binary GraphDef by name, as views of the mapped file.

    Raises:
        OSError, ValueError: no such file, another kind of file, or a truncated one.
    """
    with path.open("rb") as file:
        graph = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    constants = {}
    try:
        for number, node in _fields(graph):
            parts = dict(_fields(node)) if number == 1 else {}
            if parts.get(2) != b"Const":
                continue
            attributes = [dict(_fields(value)) for part, value in _fields(node) if part == 5]
            value = next(dict(_fields(one[2])) for one in attributes if one[1] == b"value")
            if (array := _floats(value[8])) is not None:
                constants[bytes(parts[1]).decode()] = array
    except (TypeError, IndexError, KeyError, StopIteration) as error:
        raise ValueError(f"not a frozen TensorFlow graph, or truncated after {len(constants)} constants") from error
    return constants


def _floats(tensor: memoryview) -> np.ndarray | None:
    """Return a TensorProto as an array, None if it holds no 32 bit floats. A short list repeats its last value."""
    parts = dict(_fields(tensor))
    if parts.get(1) != DT_FLOAT:
        return None
    shape = [dict(_fields(size)).get(1, 0) for number, size in _fields(parts.get(2, b"")) if number == 2]
    if 5 not in parts:
        return np.frombuffer(parts.get(4, b""), "<f4").reshape(shape)
    listed = np.frombuffer(b"".join(value for number, value in _fields(tensor) if number == 5), "<f4")
    return np.pad(listed, (0, math.prod(shape) - len(listed)), mode="edge").reshape(shape)


def _fields(buffer: memoryview | bytes) -> Iterator[tuple[int, Any]]:
    """Yield a message's fields in order: number and value, an int or a memoryview of bytes."""
    position = 0
    while position < len(buffer):
        key, position = _varint(buffer, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = _varint(buffer, position)
            yield number, value
            continue
        length, position = _varint(buffer, position) if kind == BYTES else ({FIXED64: 8, FIXED32: 4}[kind], position)
        if position + length > len(buffer):
            raise IndexError("truncated")
        yield number, buffer[position : position + length]
        position += length


def _varint(buffer: memoryview | bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
