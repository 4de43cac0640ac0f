"""What animate writes, and what it never writes over."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.animate.command import animate
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.media.writer import write_video
from tests.test_animate import QUICK, WEIGHTS, speech


@pytest.fixture
def inputs(tmp_path):
    """A person of 0.4 s and a sound of 0.2 s."""
    write_video(tmp_path / "person.mp4", perform(seed=0, number=900, seconds=0.4).frames(256), crf=12)
    return tmp_path / "person.mp4", speech(tmp_path / "speech.wav", 0.2)


@pytest.mark.parametrize("name", ["person.mp4", "speech.wav", "notes.mp4", "folder", "no/such.txt/out.mp4"])
def test_files_of_others_are_never_written_over(inputs, tmp_path, name):
    (tmp_path / "notes.mp4").write_bytes(b"somebody's")
    (tmp_path / "folder").mkdir()
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "such.txt").write_text("a file")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=name.partition("/")[0]):
        animate(WEIGHTS, *inputs, tmp_path / name, **QUICK)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_video_of_ones_own_is_made_anew(inputs, tmp_path):
    for seed in (0, 1):
        animate(WEIGHTS, *inputs, tmp_path / "out.mp4", seed=seed, **QUICK)


def test_a_preview_writes_over_previews_alone(inputs, tmp_path):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "mine.png")
    for name in ("mine.png", "look.jpg", "person.mp4"):
        with pytest.raises(UserError, match=name):
            animate(WEIGHTS, *inputs, preview=tmp_path / name, **QUICK)
    for _ in range(2):
        animate(WEIGHTS, *inputs, preview=tmp_path / "look.png", **QUICK)


def test_a_face_that_comes_late_is_in_the_preview(tmp_path):
    face = list(perform(seed=0, number=900, seconds=0.6).frames(256))
    frames = [*[np.full_like(face[0], 90)] * 40, *face]
    write_video(tmp_path / "late.mp4", frames, crf=12)
    animate(WEIGHTS, tmp_path / "late.mp4", speech(tmp_path / "s.wav", 3.0), preview=tmp_path / "look.png", **QUICK)
    assert (tmp_path / "look.png").exists()


@pytest.mark.parametrize("line", ["--interpolate 2", "--video v --steadiness.start 2", "--jobs j --video v"])
def test_wrong_usage_ends_with_2(line, capsys):
    try:
        code = main(["animate", "--checkpoint", str(WEIGHTS), *line.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_leaves_nothing_behind(inputs, tmp_path, how):
    (tmp_path / "temp").mkdir()
    long = speech(tmp_path / "long.wav", 120)
    command = [sys.executable, "-m", "difftalk_pl", "animate", "--checkpoint", str(WEIGHTS), "--workers", "0"]
    command += ["--video", str(inputs[0]), "--audio", str(long), "--out", str(tmp_path / "out" / "o.mp4")]
    before = signal.signal(how, signal.default_int_handler)  # a child of a background shell ignores Ctrl-C otherwise
    process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path / "temp")})
    signal.signal(how, before)
    end = time.monotonic() + 60
    while not (begun := any((tmp_path / "out").glob(".o.mp4*"))) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(how)
    assert process.wait(30) == {signal.SIGTERM: 143, signal.SIGINT: 130}[how] and begun
    assert list((tmp_path / "out").iterdir()) == []
    assert not list((tmp_path / "temp").glob("difftalk_pl_*"))
