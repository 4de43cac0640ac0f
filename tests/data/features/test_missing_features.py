"""Features that some clips lack are told of before a window is drawn, with what helps each of the clips."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, read_rows, write_rows
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.features.kinds import check_features
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError
from tests.data.conftest import CODEC

SPLIT = Split(val=["synthetic_001"], test=["synthetic_002"])


def module(root: Path, **options) -> HDTFDataModule:
    """The data module beside a model whose autoencoder made the latents."""
    data = HDTFDataModule(root, split=SPLIT, loading=Loading(workers=0), **options)
    model = SimpleNamespace(codec=SimpleNamespace(hash=CODEC))
    data.trainer = SimpleNamespace(lightning_module=model)  # type: ignore[assignment]
    return data


def without_features(talkers: Path, tmp_path: Path, *clips: str) -> Path:
    """The dataset, whose named clips have no MFCC."""
    root = shutil.copytree(talkers, tmp_path / "talkers", copy_function=os.link)
    for clip in clips:
        (root / "clips" / clip / "features" / "mfcc.npy").unlink()
    return root


@pytest.mark.parametrize(
    "stage, clip", [("fit", 0), ("fit", 1), ("validate", 1), ("test", 2), ("predict", 2), ("fit", None)]
)
@pytest.mark.parametrize("contents", ["latents", "images"])
def test_missing_features_are_found_before_a_window_is_drawn(talkers, tmp_path, stage, clip, contents):
    """Of the sides that are opened, and of those alone."""
    names = [f"synthetic_00{number}" for number in range(3)]
    opened = {"fit": names[:2], "validate": names[1:2]}.get(stage, names[2:])
    gone = [name for name in names if name not in opened] if clip is None else [names[clip]]
    root = without_features(talkers, tmp_path, *gone)
    data = module(root, contents=contents)
    if clip is None:
        data.setup(stage)
        assert data.audio_channels == 26
        return
    with pytest.raises(UserError) as raised:
        data.setup(stage)
    assert str(raised.value) == (
        f"{root}: 1 of {len(opened)} clips have no mfcc features; {gone[0]}: "
        f"run add-features --data {root} --features mfcc"
    )


def test_all_clips_without_features_are_listed_each_with_its_remedy(talkers, tmp_path):
    root = without_features(talkers, tmp_path, "synthetic_000", "synthetic_001")
    path = root / "clips" / "synthetic_001" / "clip.json"
    info = {**json.loads(path.read_text()), "features_remedy": "give its sound"}
    path.unlink()  # a link
    path.write_text(json.dumps(info))
    with pytest.raises(UserError) as raised:
        module(root).setup("fit")
    assert str(raised.value) == (
        f"{root}: 2 of 2 clips have no mfcc features; "
        f"synthetic_000: run add-features --data {root} --features mfcc; synthetic_001: give its sound"
    )


def test_many_clips_without_features_are_counted(tmp_path):
    people = [Clip(Path("nowhere"), f"p{number:02d}_0", 100) for number in range(20)]
    remedy = "p11_0 and 8 more: run add-features --data .* --features deepspeech --deepspeech …$"
    with pytest.raises(UserError, match=rf"20 of 20 clips have no deepspeech features; p00_0, p01_0, .*, {remedy}"):
        check_features(tmp_path, people, "deepspeech")


def test_frames_need_no_features_and_short_clips_do_not_count(talkers, tmp_path):
    root = without_features(talkers, tmp_path, "synthetic_000", "synthetic_001", "synthetic_002")
    for stage in ("fit", "validate", "test"):
        module(root, contents="frames").setup(stage)
    rows = read_rows(talkers)
    short = tmp_path / "short"
    shutil.copytree(talkers, short, copy_function=shutil.copy)
    (short / "clips" / "synthetic_000" / "features" / "mfcc.npy").unlink()
    write_rows(short, [row._replace(frames=50) if row.name == "synthetic_000" else row for row in rows.values()])
    data = HDTFDataModule(short, contents="images", split=Split(val=0, test=0), loading=Loading(workers=0))
    data.setup("fit")
    assert data.audio_channels == 26


def test_looking_for_features_opens_no_array(talkers, monkeypatch):
    def opened(*args, **kwargs):
        raise AssertionError("an array was opened")

    monkeypatch.setattr(np, "load", opened)
    module(talkers, contents="images").setup("fit")
