"""The reader of frozen graphs, on files written from the definitions and on files that are something else."""

import gzip
import struct

import numpy as np
import pytest
import torch

from difftalk_pl.data.features.frozen_graph import read_graph
from difftalk_pl.errors import UserError
from tests.frozen import attribute, constant, constants, message, node, number, tensor, varint

PACKED = message(5, struct.pack("<2f", 1.5, -2.0))
LOOSE = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1.5, -2.0))


def read(tmp_path, content: bytes):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    return read_graph(path, "get the right one")


def test_arrays_come_back_and_all_else_is_stepped_over(tmp_path):
    arrays = {
        "weights": np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32),
        "bias": np.arange(300, dtype=np.float32),
        "scope/scalar": np.array(2.5, np.float32),
        "none": np.zeros((0, 4), np.float32),
    }
    others = [
        node("input", "Placeholder", attribute("dtype", number(6, 1))),
        constant("ints", tensor((2,), message(4, np.arange(2, dtype="<i4").tobytes()), dtype=3)),
        node("weights/read", "Identity", attribute("_class", message(1, message(2, b"loc:@weights")))),
        node("no value", "Const", attribute("dtype", number(6, 1))),
        message(4, number(1, 24)),  # versions
        message(2, b""),  # library
    ]
    graph = read(tmp_path, others[0] + others[1] + constants(arrays) + b"".join(others[2:]))
    assert graph.nodes == {*arrays, "input", "ints", "weights/read", "no value"}
    assert set(graph.constants) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(graph.constants[name], array)


@pytest.mark.parametrize("listed", [PACKED, LOOSE], ids=["packed", "loose"])
def test_a_short_list_repeats_its_last_value(tmp_path, listed):
    graph = read(tmp_path, constant("a", tensor((2, 3), listed)))
    np.testing.assert_array_equal(graph.constants["a"], [[1.5, -2, -2], [-2, -2, -2]])


def test_a_tensor_without_values_is_zero(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, constant("a", tensor((3,)))).constants["a"], np.zeros(3))


@pytest.mark.parametrize("missing", [1, 100, 800, 1195])
def test_a_truncated_file_is_named(tmp_path, missing):
    whole = node("first", "Placeholder") + constants({"bias": np.ones(300)})
    with pytest.raises(UserError, match=r"graph\.pb: damaged or truncated after 1 nodes .*get the right one"):
        read(tmp_path, whole[:-missing])


def test_content_of_the_wrong_length_is_damage(tmp_path):
    with pytest.raises(UserError, match=r"damaged.*12 bytes for floats of shape \(4,\)"):
        read(tmp_path, node("a", "NoOp") + constant("b", tensor((4,), message(4, bytes(12)))))


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Not Found</html>", "not a frozen TensorFlow graph"),
        (b"node {\n  name: 'a'\n}\n", "a graph in text form"),
        (gzip.compress(b"graph", mtime=0), r"a gzip archive.*tar xzf"),
        (bytes(100), "not a frozen TensorFlow graph"),
        (b"\xff" * 100, "not a frozen TensorFlow graph"),
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
    ],
)
def test_other_files_are_refused(tmp_path, content, what):
    with pytest.raises(UserError, match=rf"graph\.pb: .*{what}.*get the right one"):
        read(tmp_path, content)


def test_other_things_than_files_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    for path, what in (
        (tmp_path / "no.pb", "no such file"),
        (tmp_path, "no such file"),
        (tmp_path / "model.pt", "zip"),
    ):
        with pytest.raises(UserError, match=what):
            read_graph(path, "")


def test_random_bytes_never_crash(tmp_path):
    random = np.random.default_rng(0)
    good = constants({"a": np.ones((4, 3)), "b": np.ones(7)})
    for _ in range(300):
        spoilt = bytearray(good)
        for position in random.integers(0, len(good), 3):
            spoilt[position] = random.integers(256)
        try:
            read(tmp_path, bytes(spoilt))
        except UserError:
            continue
