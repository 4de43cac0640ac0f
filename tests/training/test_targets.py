"""What lies in the way of --out is kept, unless the same commands made it."""

import json

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.errors import UserError
from difftalk_pl.training.targets import refuse_foreign_folder
from difftalk_pl.training.weights import export, read_weights
from tests.published import first_stage, refused, run, save


@pytest.fixture
def first(tmp_path):
    return save(first_stage(widths=(32, 32), blocks=1), tmp_path / "first.ckpt")


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_checkpoint_of_a_run_is_never_written_over(codec, first, capsys, tmp_path):
    before = codec.read_bytes()
    assert "is the file that is read: give --out another name" in refused(capsys, codec, "--out", codec)
    line = refused(capsys, first, "--out", codec)
    assert (
        line.startswith(f"difftalk_pl import-checkpoint: {codec}: is there") and "may be all that a run goes on" in line
    )
    (tmp_path / "link.ckpt").symlink_to(codec)
    assert "the file that is read" in refused(capsys, codec, "--out", tmp_path / "link.ckpt")
    assert codec.read_bytes() == before


def test_any_other_file_is_kept_too(first, capsys, tmp_path):
    before = first.read_bytes()
    (tmp_path / "text.ckpt").write_text("mine")
    torch.save({"difftalk_pl": {}, "state_dict": {}}, tmp_path / "weights_only.ckpt")  # such as a callback saves
    (tmp_path / "folder.ckpt").mkdir()
    for name in ("text.ckpt", "weights_only.ckpt"):
        assert f"{name}: is there" in refused(capsys, first, "--out", tmp_path / name)
    assert "folder.ckpt: is a folder" in refused(capsys, first, "--out", tmp_path / "folder.ckpt")
    assert run(first, "--out", tmp_path / "vq") == 0
    assert "first.ckpt: is there" in refused(capsys, tmp_path / "vq", "--out", first)
    assert first.read_bytes() == before and (tmp_path / "text.ckpt").read_text() == "mine"


def test_what_import_checkpoint_made_it_makes_again(first, tmp_path):
    one = tmp_path / "one.ckpt"
    assert run(first, "--out", one) == 0
    other = save(first_stage(widths=(32, 64), blocks=1), tmp_path / "other.ckpt")
    assert run(other, "--out", one) == 0
    assert read_weights(one).config["autoencoder"]["block_out_channels"] == [32, 64]


@pytest.mark.parametrize("name", ["README.md", "config.json", "anything"])
def test_folders_of_others_are_kept(first, codec, capsys, tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_text(json.dumps({"_class_name": "VQModel", "stage": "autoencoder"}))
    before = content(folder)
    assert f"{folder}: holds {name}, which" in refused(capsys, first, "--out", folder)
    assert main(["export", "--checkpoint", str(codec), "--out", str(folder)]) == 1
    assert f"{folder}: holds {name}, which" in capsys.readouterr().err
    with pytest.raises(UserError, match="give --out a new or an empty folder"):
        read_weights(codec).save_pretrained(folder)
    assert content(folder) == before


def test_a_folder_of_others_inside_one_of_ours_is_kept(first, codec, runner, tmp_path):
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 1, "limit_val_batches": 0}}
    runner("fit", "diffusion", "talk", over)
    assert run(first, "--out", tmp_path / "model") == 0
    (tmp_path / "model" / "autoencoder").mkdir()
    (tmp_path / "model" / "autoencoder" / "notes.txt").write_text("mine")
    before = content(tmp_path / "model")
    with pytest.raises(UserError, match=r"autoencoder: holds notes\.txt"):
        export(runner.checkpoint("talk"), tmp_path / "model")
    assert content(tmp_path / "model") == before


def test_empty_folders_and_those_of_the_same_commands_are_written(first, codec, tmp_path):
    folder = tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)  # as of a new repository
    assert run(first, "--out", folder) == 0
    export(codec, folder)
    assert read_weights(folder).hash == read_weights(codec).hash and (folder / ".git").is_dir()


def test_a_card_is_written_anew_and_a_readme_of_somebody_is_kept(first, codec, tmp_path):
    readme = tmp_path / "model" / "README.md"
    assert run(first, "--out", tmp_path / "model") == 0
    assert read_weights(tmp_path / "model").hash in readme.read_text()
    export(codec, tmp_path / "model")
    assert read_weights(codec).hash in readme.read_text()
    readme.write_text("# How these weights were made")
    assert run(first, "--out", tmp_path / "model") == 0
    assert readme.read_text() == "# How these weights were made"


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PT"])
def test_names_of_other_kinds_of_files_are_no_folders(first, capsys, tmp_path, suffix):
    out = tmp_path / f"z{suffix}"
    assert f"z{suffix}: --out takes a folder" in refused(capsys, first, "--out", out)
    assert not out.exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: is a file; --out takes a folder"):
        refuse_foreign_folder(tmp_path / "file")
