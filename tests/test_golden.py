"""Golden numbers are what their README says, and still what the published implementations gave."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.npz"))
REDUCED = ("audio_windows", "deepspeech_input")
CHANNELS = 3  # that audio_windows.npz kept


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_readme_lists_every_file_with_its_hash():
    listed = dict(
        re.findall(r"^\| `(\w+\.npz)` .* `([0-9a-f]{64})` \|$", (GOLDEN / "README.md").read_text(), re.MULTILINE)
    )
    assert listed == {path.name: sha256(path) for path in FILES}


@pytest.mark.oracle
@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in REDUCED], ids=lambda path: path.stem)
def test_a_copy_is_its_original(path, oracles):
    assert sha256(path) == sha256(oracles / path.name)


@pytest.mark.oracle
def test_the_reduced_windows_are_channels_of_their_original(oracles):
    golden, original = (np.load(folder / "audio_windows.npz") for folder in (GOLDEN, oracles))
    for name in ("logits_50hz", "windows", "smoothing_windows"):
        reduced = golden[{"logits_50hz": "steps"}.get(name, name)]
        np.testing.assert_array_equal(reduced, original[name][..., :CHANNELS])
    np.testing.assert_array_equal(golden["smoothing_frames"], original["smoothing_frames"])


@pytest.mark.oracle
def test_the_inputs_of_deepspeech_are_steps_of_their_original(oracles):
    golden, original = np.load(GOLDEN / "deepspeech_input.npz"), np.load(oracles / "audio_windows.npz")
    np.testing.assert_array_equal(golden["audio_int16"], original["audio_int16"])
    np.testing.assert_array_equal(golden["input"], original["deepspeech_input"][golden["steps"]])
