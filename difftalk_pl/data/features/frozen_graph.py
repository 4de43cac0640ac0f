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

VARINT, BYTES = 0, 2  # wire types
SIZES = {1: 8, 5: 4}  # bytes of the fixed ones
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
            if parts.get(2) == b"Const":
                attributes = [dict(_fields(value)) for part, value in _fields(node) if part == 5]
                tensor = next(dict(_fields(one[2]))[8] for one in attributes if one[1] == b"value")
                constants[bytes(parts[1]).decode()] = _floats(tensor)
    except (TypeError, IndexError, KeyError, StopIteration) as error:
        raise ValueError(f"not a frozen TensorFlow graph, or truncated after {len(constants)} constants") from error
    return {name: array for name, array in constants.items() if array is not None}


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
        if key & 7 == VARINT:
            value, position = _varint(buffer, position)
            yield key >> 3, value
            continue
        length, position = _varint(buffer, position) if key & 7 == BYTES else (SIZES[key & 7], position)
        if position + length > len(buffer):
            raise IndexError("truncated")
        yield key >> 3, buffer[position : position + length]
        position += length


def _varint(buffer: memoryview | bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := buffer[position]) & 0x80:
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return value | byte << shift, position + 1
