"""Constants of a frozen TensorFlow graph, read from the protobuf wire format, so that TensorFlow is not needed.

The fields that are looked at, from TensorFlow's graph.proto, node_def.proto, attr_value.proto and tensor.proto:
GraphDef.node 1; NodeDef.name 1, .op 2, .attr 5 (a map: key 1, value 2); AttrValue.tensor 8; TensorProto.dtype 1,
.tensor_shape 2, .tensor_content 4, .float_val 5; TensorShapeProto.dim 2; Dim.size 1. All others are stepped over.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from difftalk_pl.errors import UserError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
DT_FLOAT = 1
LONGEST_VARINT = 10  # bytes of 7 bits
ALIENS = {  # first bytes of files that are mistaken for a graph
    b"version https://git-lfs": "a git-lfs pointer, not the file itself: run git lfs pull",
    b"\x1f\x8b": "a gzip archive: unpack it (tar xzf) and give the .pb file inside",
    b"PK\x03\x04": "a zip archive: unpack it and give the .pb file inside",
    b"node {": "a graph in text form; the binary .pb is needed",
}


class Graph(NamedTuple):
    """Names of all nodes, and the float constants: arrays that are views of the mapped file, not aligned in memory."""

    nodes: set[str]
    constants: dict[str, np.ndarray]


class _WireError(ValueError):
    """Not a protobuf message, or not a whole one."""


def read_graph(path: Path, remedy: str) -> Graph:
    """Map a frozen graph into memory and find its float constants; nothing is copied.

    Args:
        path: a binary GraphDef.
        remedy: where to get the right file; ends every message.

    Raises:
        UserError: no such file, another kind of file, or a damaged one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: an empty file; {remedy}")
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for start, what in ALIENS.items():
        if content[: len(start)] == start:
            raise UserError(f"{path}: {what}; {remedy}")
    nodes, constants = set[str](), dict[str, np.ndarray]()
    try:
        for name, tensor in _nodes(content):
            nodes.add(name)
            if tensor is not None and (array := _floats(tensor)) is not None:
                constants[name] = array
    except (_WireError, UnicodeDecodeError) as error:
        what = f"damaged or truncated after {len(nodes)} nodes" if nodes else "not a frozen TensorFlow graph"
        raise UserError(f"{path}: {what} ({error}); {remedy}") from error
    return Graph(nodes, constants)


def _nodes(graph: memoryview) -> Iterator[tuple[str, memoryview | None]]:
    """Every node's name, and the TensorProto of a constant."""
    for number, node in _messages(graph):
        if number != 1:
            continue
        parts = {part: value for part, value in _messages(node) if part in (1, 2)}
        name = bytes(parts.get(1, b"")).decode()
        yield name, _value(node) if parts.get(2, b"") == b"Const" else None


def _value(node: memoryview) -> memoryview | None:
    for number, attribute in _messages(node):
        if number == 5:
            entry = dict(_messages(attribute))
            if entry.get(1, b"") == b"value":
                return dict(_messages(entry[2])).get(8) if 2 in entry else None
    return None


def _floats(tensor: memoryview) -> np.ndarray | None:
    """A TensorProto as an array; None where it holds no 32 bit floats. A short list repeats its last value."""
    shape: list[int] = []
    content, values = memoryview(b""), bytearray()
    for number, _, value in _fields(tensor):
        if number == 1 and value != DT_FLOAT:
            return None
        if number == 2:
            shape = [dict(_numbers(dim)).get(1, 0) for part, dim in _messages(_bytes(value)) if part == 2]
        elif number == 4:
            content = _bytes(value)
        elif number == 5:
            values += _bytes(value)
    count = int(np.prod(shape, dtype=np.int64))
    if content.nbytes or not values:
        if content.nbytes not in (0, 4 * count):
            raise _WireError(f"{content.nbytes} bytes for floats of shape {tuple(shape)}")
        flat = np.frombuffer(content, "<f4") if content.nbytes else np.zeros(count, np.float32)
    else:
        listed = np.frombuffer(bytes(values), "<f4")[:count]
        flat = np.concatenate([listed, np.full(count - len(listed), listed[-1] if len(listed) else 0, np.float32)])
    return flat.reshape(shape)


def _messages(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold bytes: texts, messages, packed lists."""
    return ((number, _bytes(value)) for number, kind, value in _fields(buffer) if kind == BYTES)


def _numbers(buffer: memoryview) -> Iterator[tuple[int, int]]:
    return ((number, value) for number, _, value in _fields(buffer) if isinstance(value, int))


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _WireError("a number where bytes were expected")
    return value


def _fields(buffer: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """A message's fields in order: number, wire type, value; a variable integer as int, all else as bytes."""
    position = 0
    while position < len(buffer):
        key, position = _varint(buffer, position)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (VARINT, BYTES, *FIXED_SIZES):
            raise _WireError(f"field {number} of wire type {kind}")
        if kind == VARINT:
            value, position = _varint(buffer, position)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, position = _varint(buffer, position)
        else:
            length = FIXED_SIZES[kind]
        if position + length > len(buffer):
            raise _WireError(f"{position + length - len(buffer)} bytes are missing at the end")
        yield number, kind, buffer[position : position + length]
        position += length


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(buffer[position : position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _WireError("a number without an end")
