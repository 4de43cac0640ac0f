"""Clips are kept by the columns of quality.csv; whatever is left out is counted."""

import logging
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from difftalk_pl.cli import EXPERIMENTS, DiffTalkCLI, build_cli
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.datamodule import HDTFDataModule
from difftalk_pl.data.quality.keep import Keep, keep_good
from difftalk_pl.data.quality.measures import MEASURES, Quality
from difftalk_pl.data.quality.table import write_quality
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError

YAWS = {"a": 3.0, "b": 35.0, "c": 36.0, "d": None}


@pytest.fixture
def sides(tmp_path) -> dict[str, list[Clip]]:
    """Four clips of an hour each; d is not known."""
    write_quality(tmp_path, [Quality(name, yaw=value, level=-20) for name, value in YAWS.items()])
    clips = {name: Clip(tmp_path, name, 90_000, name) for name in YAWS}
    return {"train": [clips["a"], clips["c"], clips["d"]], "val": [clips["b"]], "test": []}


def names(sides):
    return {side: [clip.name for clip in clips] for side, clips in sides.items()}


def test_both_ends_belong_to_a_range_and_what_is_not_known_is_out(tmp_path, sides, caplog):
    caplog.set_level(logging.INFO)
    kept = keep_good(tmp_path, sides, Keep(yaw=(None, 35), level=(-30, None)))
    assert names(kept) == {"train": ["a"], "val": ["b"], "test": []}
    assert "keep yaw […, 35]: 2 clips (2.00 h) out, 1 unknown" in caplog.messages
    assert "keep level [-30, …]: 0 clips (0.00 h) out" in caplog.messages
    assert "keep: 2 clips (2.00 h) of 4 clips (4.00 h) stay" in caplog.messages
    assert names(keep_good(tmp_path, sides, Keep(yaw=(3, None)))) == {"train": ["a", "c"], "val": ["b"], "test": []}


def test_without_ranges_nothing_is_read(tmp_path, sides):
    (tmp_path / "quality.csv").unlink()
    assert keep_good(tmp_path, sides, Keep()) == sides


@pytest.mark.parametrize(
    "keep, message",
    [
        (Keep(yaw=(35, 3)), r"data\.keep\.yaw \[35, 3\]: nothing lies between"),
        (Keep(yaw=(None, 10)), "no clip of the val side lies within all ranges"),
        (Keep(sync_offset=(-2, 2)), r"sync_offset is not known of any clip; run report .* --syncnet"),
        (Keep(gaps=(0, 1)), "gaps is not known of any clip; leave it out"),
    ],
)
def test_ranges_that_cannot_be_meant_are_told(tmp_path, sides, keep, message):
    with pytest.raises(UserError, match=message):
        keep_good(tmp_path, sides, keep)


def test_clips_that_are_not_measured_are_told(tmp_path, sides):
    write_quality(tmp_path, [Quality("a", yaw=1.0)])
    with pytest.raises(UserError, match=r"3 of 4 clips are not measured \(c, d, b\).*; run report"):
        keep_good(tmp_path, sides, Keep(yaw=(None, 35)))
    (tmp_path / "quality.csv").unlink()
    with pytest.raises(UserError, match="4 of 4 clips are not measured"):
        keep_good(tmp_path, sides, Keep(yaw=(None, 35)))


def test_every_column_can_be_filtered_by():
    assert [one.name for one in fields(Keep)] == list(MEASURES)


def test_the_data_module_trains_on_what_is_kept(talkers, tmp_path):
    """Whoever is filtered by another range, or by none, has the same sides."""
    for name in ("clips", "latents", "clips.csv", "dataset.json"):
        (tmp_path / name).symlink_to(talkers / name)
    clips = [clip.name for clip in open_clips(talkers)]
    write_quality(tmp_path, [Quality(name, yaw=float(k)) for k, name in enumerate(clips)])
    split = Split(val=[clips[0]], test=0.0)
    data = HDTFDataModule(tmp_path, contents="images", split=split, keep=Keep(yaw=(None, 1)))
    data.setup("fit")
    assert names(data.sides) == {"train": [clips[1]], "val": [clips[0]], "test": []}
    assert {data.windows["train"][k]["clip"] for k in (0, 1)} == {clips[1]}
    assert len(data.windows["train"].clips) == 1


@pytest.fixture
def parse(monkeypatch, tmp_path):
    monkeypatch.setattr(DiffTalkCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(DiffTalkCLI, "_run_subcommand", lambda self, name: None)
    monkeypatch.setattr(DiffTalkCLI, "before_instantiate_classes", lambda self: None)

    def parse(*keeps: dict, words: tuple[str, ...] = ()):
        files: list[str] = ["-c", str(EXPERIMENTS / "demo" / "diffusion.yaml")]
        for number, keep in enumerate(keeps):
            path = Path(tmp_path / f"{number}.yaml")
            path.write_text(yaml.safe_dump({"data": {"keep": keep}}))
            files += ["-c", str(path)]
        return build_cli(["fit", *files, *words]).config.fit.data.keep

    return parse


def test_ranges_come_from_files_and_the_command_line(parse):
    keep = parse({"yaw": [None, 35], "face_size": [100, None]}, {"sync_offset": [-2, 2]})
    assert (keep.yaw, keep.face_size, keep.sync_offset) == ((None, 35), (100, None), (-2, 2)), "files are merged"
    assert keep.level is None
    assert parse({"yaw": [None, 35]}, words=("--data.keep.yaw", "[null, 20]")).yaw == (None, 20)


@pytest.mark.parametrize(
    "keep, told", [({"yow": [None, 35]}, "yow"), ({"yaw": 35}, "tuple"), ({"yaw": [1, 2, 3]}, "2 elements")]
)
def test_what_is_no_range_of_a_column_fails_when_it_is_parsed(parse, capsys, keep, told):
    with pytest.raises(SystemExit) as stop:
        parse(keep)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and told in text.partition("error:")[2] and "--data.keep.face_size" in text
