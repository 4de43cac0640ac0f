"""The command `watermark`: a line a video, and bad files that do not stop it."""

import json

import pytest

from difftalk_pl.animate.watermark import Watermark
from difftalk_pl.animate.watermark_command import describe_tag, watermark
from difftalk_pl.errors import UserError
from difftalk_pl.media.writer import TAG, write_video
from tests.animate.test_watermark import footage


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    mark, about = Watermark("3f09a7"), {"generated": True, "by": "difftalk_pl 1.0", "model": "3f09a7001122"}
    frames = (mark.mark(frame) for frame in footage(256, 256, 25))
    write_video(folder / "marked.mp4", frames, tags={TAG: json.dumps(about)})
    write_video(folder / "plain.mp4", footage(256, 256, 10))
    return folder


def test_marked_and_not_marked_are_said_with_their_tags(videos, capsys):
    watermark([videos])
    marked, plain = capsys.readouterr().out.splitlines()
    assert "marked.mp4: marked, model 3f09a7, agreement " in marked
    assert marked.endswith("; tag: by difftalk_pl 1.0, model 3f09a7001122")
    assert "plain.mp4: not marked (z " in plain and plain.endswith("; no tag")


def test_a_bad_file_does_not_stop_the_others(videos, tmp_path, capsys, caplog):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="2 of 3 videos could not be read"):
        watermark([tmp_path / "bad.mp4", tmp_path / "missing.mp4", videos / "marked.mp4"])
    assert "model 3f09a7" in capsys.readouterr().out
    assert "bad.mp4: unreadable" in caplog.text and "missing.mp4" in caplog.text


def test_what_cannot_be_asked_is_said(videos, tmp_path):
    with pytest.raises(UserError, match="--seconds 0"):
        watermark([videos], seconds=0)
    with pytest.raises(UserError, match="no videos"):
        watermark([tmp_path])


def test_foreign_tags_are_shown_on_one_line():
    assert describe_tag("two\nlines \x1b[31m") == "tag: two lines  [31m"
    assert describe_tag("[1]") == "tag: [1]" and len(describe_tag("x" * 1000)) < 130
