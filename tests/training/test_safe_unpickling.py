"""Files of strangers: what training programs write is read, what would run is refused by name and does not run."""

import argparse
import collections
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from difftalk_pl.errors import UserError
from difftalk_pl.training.safe_unpickling import listed, read_file

STATE = {"weight": torch.arange(6.0).view(2, 3)}


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hidden(module, name, argument):
    """A pickle of protocol 2 that calls module.name(argument), whether there is such a module or not."""
    text = f"c{module}\n{name}\n".encode()
    return b"\x80\x02" + text + b"X" + len(argument).to_bytes(4, "little") + argument.encode() + b"\x85R."


def as_checkpoint(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return path


def everything_that_training_programs_save():
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    config = OmegaConf.create({"model": {"rate": 1e-6, "levels": [1, 2], "name": None, "ema": True}})
    defaults = collections.defaultdict(list)
    defaults["a"].append(1)
    return {
        "state_dict": collections.OrderedDict(STATE),
        "callbacks": {ModelCheckpoint: {"best_model_score": np.float64(0.5)}, EarlyStopping: {"wait": np.int64(3)}},
        "hyper_parameters": {"config": config, "namespace": argparse.Namespace(gpus=2), "defaults": defaults},
        "scores": np.arange(3.0),
        "folder": pathlib.PurePosixPath("a/b"),
        "epoch": 7,
    }


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old format"])
def test_what_training_programs_save_is_read(tmp_path, archive):
    path = tmp_path / "model.ckpt"
    torch.save(everything_that_training_programs_save(), path, _use_new_zipfile_serialization=archive)
    content = read_file(path)
    assert content["epoch"] == 7
    assert torch.equal(content["state_dict"]["weight"], STATE["weight"])
    assert sorted(kind.__name__ for kind in content["callbacks"]) == ["EarlyStopping", "ModelCheckpoint"]
    assert {kind.__module__ for kind in content["callbacks"]} == {"difftalk_pl.training.safe_unpickling"}


def test_the_modules_behind_the_names_are_never_imported(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(everything_that_training_programs_save(), path)
    code = (
        "import sys; from pathlib import Path; from difftalk_pl.training.safe_unpickling import read_file;"
        f"read_file(Path({str(path)!r})); print([m for m in ('omegaconf', 'lightning', 'pytorch_lightning') "
        "if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old format"])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (exec, "builtins.exec"), (open, "io.open"), (subprocess.getoutput, "getoutput")],
)
def test_what_would_run_is_refused_by_name(tmp_path, archive, function, name):
    made = tmp_path / "made"
    arguments = {os.system: f"touch {made}", exec: f"open({str(made)!r}, 'w')", open: str(made)}
    call = Calls(function, *((str(made), "w") if function is open else (arguments.get(function, f"touch {made}"),)))
    path = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": STATE, "extra": call}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=rf"bomb\.ckpt: not a readable checkpoint: .*{name}.*nothing of it was run"):
        read_file(path)
    assert not made.exists()
    torch.load(path, weights_only=False)  # it is a real one
    assert made.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("omegaconf.os", "system"),
        ("omegaconf.dictconfig", "os.system"),
        ("omegaconf.dictconfig.DictConfig", "os.system"),
        ("pytorch_lightning.utilities.cloud_io", "load"),
        ("pytorch_lightning.callbacks.model_checkpoint", "os.remove"),
        ("lightning.pytorch.callbacks", "Callback.os"),
        ("numpy.core.multiarray.scalar", "os.system"),
        ("torch.hub", "os.system"),
        ("torch", "load"),
        ("os", "system"),
        ("sys", "exit"),
        ("typing", "get_type_hints"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_a_known_name_hides_nothing(tmp_path, module, name):
    made = tmp_path / "made"
    path = as_checkpoint(tmp_path / "bomb.ckpt", hidden(module, name, f"touch {made}"))
    shown = f"{module.replace('__builtin__', 'builtins')}.{name}"
    with pytest.raises(UserError, match=rf"bomb\.ckpt: .*refers to .*{shown}"):
        read_file(path)
    assert not made.exists()


def test_a_stand_in_calls_nothing(tmp_path):
    made = tmp_path / "made"
    name = ("pytorch_lightning.callbacks.base", "Callback")
    content = read_file(as_checkpoint(tmp_path / "model.ckpt", hidden(*name, f"touch {made}")))
    assert vars(content) == {} and not made.exists()


def test_names_that_only_running_would_show_are_refused(tmp_path):
    newer = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'made'}"), protocol=4)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_file(as_checkpoint(tmp_path / "bomb.ckpt", newer))
    (tmp_path / "plain.pkl").write_bytes(newer)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_file(tmp_path / "plain.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old format"])
def test_newer_pickles_of_torch_are_named(tmp_path, archive):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": STATE}, path, pickle_protocol=4, _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"written with pickle protocol 4 or newer; save it again with torch.save's"):
        read_file(path)


def packed_again(source, target, compressed):
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as other:
        for name in archive.namelist():
            kind = zipfile.ZIP_DEFLATED if name.endswith(compressed) else zipfile.ZIP_STORED
            other.writestr(name, archive.read(name), compress_type=kind)
    return target


def test_compressed_records_are_refused_before_they_are_read(tmp_path):
    torch.save(STATE, tmp_path / "model.ckpt")
    assert torch.equal(
        read_file(packed_again(tmp_path / "model.ckpt", tmp_path / "plain.ckpt", "none"))["weight"], STATE["weight"]
    )
    for record in ("data.pkl", "data/0"):
        path = packed_again(tmp_path / "model.ckpt", tmp_path / "packed.ckpt", record)
        with pytest.raises(UserError, match=rf"packed\.ckpt: .*compressed records.*{record}"):
            read_file(path)


def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "model.ckpt") as archive:
        size = archive.getinfo("model/data.pkl").file_size
    monkeypatch.setattr("difftalk_pl.training.safe_unpickling.RECORD_LIMIT", size)
    read_file(tmp_path / "model.ckpt")
    monkeypatch.setattr("difftalk_pl.training.safe_unpickling.RECORD_LIMIT", size - 1)
    with pytest.raises(UserError, match=rf"data\.pkl has {size:,} bytes, more than the {size - 1:,} that are read"):
        read_file(tmp_path / "model.ckpt")


def truncated(path):
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-200])


def truncated_of_the_old_format(path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:100])


def script(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def archive_of_files(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.ckpt", "x")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
        (b"<!DOCTYPE html><html>Quota exceeded", "web page"),
        (b"learning_rate: 1.0e-4\n", "a text that starts with 'learning_rate: 1.0e-4'"),
        (b"\x00\x01\x02\xff" * 100, "400 bytes of no format"),
        (pickle.dumps({"a": 1}), "a pickle, but none that torch.save wrote"),
        (truncated, "cut short"),
        (truncated_of_the_old_format, "cut short"),
        (script, "TorchScript"),
        (archive_of_files, "unpack it first"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, found):
    path = tmp_path / "model.ckpt"
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.ckpt: not a readable checkpoint: .*{found}"):
        read_file(path)


def test_a_damaged_safetensors_file_and_one_that_is_not_there(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable safetensors file: .*git lfs pull"):
        read_file(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"absent\.ckpt: no such file"):
        read_file(tmp_path / "absent.ckpt")


def test_long_lists_end_with_a_count():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(20)]).endswith("10, 11 and 8 more")
