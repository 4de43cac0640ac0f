"""From folders, lists and shots to prepared clips: names, identities, and the very frames and sound of a span."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import Clip, open_clips, read_rows
from difftalk_pl.data.prepare import prepare
from tests.data.sources.shot_films import SIDE, Film, film

SMALL = {"size": 64, "min_face": 40, "min_seconds": 1}  # the films are of 160 pixels and a few seconds


@pytest.fixture(scope="module")
def talks(real_clips, tmp_path_factory) -> list[Film]:
    """Two people, 1.2 s each."""
    folder = tmp_path_factory.mktemp("talks")
    return [film(folder / f"{name}.mp4", [(real_clips / f"{name}.mp4", 1.2)]) for name in ("hdtf_aoc", "r3d_may")]


@pytest.fixture(scope="module")
def mixed(real_clips, tmp_path_factory) -> Film:
    """Shots of 25 fps, 30 fps and a variable rate."""
    parts = [("hdtf_aoc", 1.5), ("dfrf_french", 1.7), ("vr_1", 2.0)]
    path = tmp_path_factory.mktemp("films") / "mixed.mp4"
    return film(path, [(real_clips / f"{name}.mp4", seconds) for name, seconds in parts])


def test_voxceleb_and_lrs_folders(talks, tmp_path):
    """A person of two videos, a source video of two clips with their transcripts, and a file with a name of its own."""
    places = {
        "id10001/1zcIwhmdeo4/00001.mp4": 0,
        "id10001/QanuGhOhb9A/00001.mp4": 0,
        "main/5535415699068794046/00001.mp4": 1,
        "main/5535415699068794046/00002.mp4": 1,
        "main/anna.mp4": 1,
    }
    for place, number in places.items():
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(talks[number].path.read_bytes())
        path.with_suffix(".txt").write_text("Text:  IT IS\n")
    prepare([tmp_path / "in"], tmp_path / "out", workers=2, **SMALL)
    assert {name: (row.identity, row.status) for name, row in read_rows(tmp_path / "out").items()} == {
        "id10001_1zcIwhmdeo4_00001": ("id10001", "ok"),
        "id10001_QanuGhOhb9A_00001": ("id10001", "ok"),
        "main_5535415699068794046_00001": ("5535415699068794046", "ok"),
        "main_5535415699068794046_00002": ("5535415699068794046", "ok"),
        "anna": ("anna", "ok"),
    }
    assert {clip.identity for clip in open_clips(tmp_path / "out")} == {"id10001", "5535415699068794046", "anna"}


def test_spans_of_a_list_hold_their_frames_and_their_sound(mixed, tmp_path):
    """Times that no frame begins at, in shots of three rates. What cannot be a clip is refused, and ends nothing."""
    spans = {"aoc": (0.113, 1.343), "french": (1.71, 3.0), "vr": (3.5, 5.05)}
    lines = "".join(f"{mixed.path},{start},{stop},{name},{name}\n" for name, (start, stop) in spans.items())
    (tmp_path / "list.csv").write_text(
        f"video,start,stop,name,identity\n{lines}{mixed.path},4,4.5,short,\nno.mp4,0,2,no,\n"
    )
    prepare([tmp_path / "list.csv"], tmp_path / "out", **SMALL)
    rows = read_rows(tmp_path / "out")
    assert rows["short"].reason == "0.5 s long, at least 1 s are needed"
    assert rows["no"].status == "refused" and "No such file" in rows["no"].reason
    clips = {clip.name: clip for clip in open_clips(tmp_path / "out")}
    assert {name: clip.identity for name, clip in clips.items()} == {name: name for name in spans}
    for name, (start, stop) in spans.items():
        assert clips[name].frames == round((stop - start) * 25)
        shows_and_sounds_like(clips[name], mixed, start)


def test_from_shots_to_clips(mixed, tmp_path):
    """By the commands: no clip shows a frame of its neighbours, and together they last as long as the film."""
    pytest.importorskip("scenedetect", reason="scenes is an extra")
    videos, out = tmp_path / "videos" / "id10001" / "x", tmp_path / "shots.csv"
    videos.mkdir(parents=True)
    (videos / "00001.mp4").symlink_to(mixed.path)
    assert main(["scenes", str(tmp_path / "videos"), "--out", str(out), "--min-seconds", "1"]) == 0
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    assert main(["prepare", str(out), "--out", str(tmp_path / "out"), *options]) == 0
    clips = open_clips(tmp_path / "out")
    assert [(clip.name, clip.identity) for clip in clips] == [
        (f"id10001_x_00001_s00{number}", "id10001") for number in range(3)
    ]
    assert abs(sum(clip.frames for clip in clips) - mixed.end * 25) <= 1.5
    for clip, start in zip(clips, [0, *mixed.cuts]):
        shows_and_sounds_like(clip, mixed, start)


def shows_and_sounds_like(clip: Clip, source: Film, start: float) -> None:
    """Frame k is the one that the film shows at start + k / 25, rather than any of the four around it."""
    crop, reader = clip.info()["crop"], clip.reader()
    box = (crop["x"], crop["y"], crop["x"] + crop["side"], crop["y"] + crop["side"])
    with av.open(str(source.path)) as container:
        decoded = [frame.to_image() for frame in container.decode(video=0)]
    pictures = [np.asarray(image.crop(box).resize((64, 64), Image.Resampling.LANCZOS), float) for image in decoded]
    assert len(pictures) == len(source.times) and decoded[0].size == (SIDE, SIDE)
    times = np.array(source.times)
    right = []
    for k in range(clip.frames):
        true = int(np.searchsorted(times, start + k / 25 + 1e-6, side="right")) - 1
        around = range(max(true - 2, 0), min(true + 3, len(pictures)))
        errors = {number: np.abs(reader[k] - pictures[number]).mean() for number in around}
        right.append(min(errors, key=errors.__getitem__) == true)
        assert errors[true] < 4
    assert np.mean(right) > 0.9  # some pictures hardly differ from the next
    with wave.open(str(Path(clip.folder) / "audio.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(float)
    assert len(sound) == 640 * clip.frames
    at, inner = round(start * 16000), slice(1600, len(sound) - 3200)
    shifts = range(-40, 41)
    likeness = [np.corrcoef(sound[inner], source.sound[at + s :][inner])[0, 1] for s in shifts if at + s >= 0]
    best = [s for s in shifts if at + s >= 0][int(np.argmax(likeness))]
    assert best == 0 and max(likeness) > 0.9
