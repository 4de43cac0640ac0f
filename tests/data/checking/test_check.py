"""Every kind of damage is found, told with its remedy, and mended only where a command makes the file again."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.checking import check as module
from difftalk_pl.data.checking.check import check
from difftalk_pl.data.checking.clip_faults import Job, check_clip
from difftalk_pl.data.clips import SUMS, Clip, create_dataset, open_clips, read_rows, write_rows
from difftalk_pl.data.files.claims import machine
from difftalk_pl.data.files.leftovers import aside_name
from difftalk_pl.data.files.sums import put_sums
from difftalk_pl.data.latents.cache import LatentCache
from difftalk_pl.data.media.video import write_video
from difftalk_pl.data.prepare import prepare
from difftalk_pl.errors import UserError
from difftalk_pl.pretrained import file_hash
from tests.data.conftest import CODEC, numbered_latents

CACHE = f"{CODEC}-mouth_safe"
DEAD = 2**22 + 1  # no process: beyond the largest number that Linux gives
AGO = 7200  # s


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def overwrite(path: Path) -> None:
    """In the middle of a frame, so that a patient decoder still shows something."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    path.write_bytes(content)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil(path: Path, place: int = 3) -> None:
    array = np.load(path)
    array[(0, place) if array.ndim == 5 else place] = np.nan
    np.save(path, array)


def shape(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


def old(path: Path) -> None:
    for one in (*path.rglob("*"), path):
        os.utime(one, (time.time() - AGO,) * 2)


def from_source(clip: Path, **changes) -> None:
    """Damage a clip, and let clip.json say that it was made from something else."""
    info = json.loads((clip / "clip.json").read_text())
    edit(clip / "clip.json", source={**info["source"], **changes})
    cut(clip / "audio.wav")


def row(root: Path, name: str, **changes) -> None:
    rows = read_rows(root)
    rows[name] = rows[name]._replace(**changes)
    write_rows(root, rows.values())


class Case(NamedTuple):
    """A damage to ROOT or to clips/NAME: what it does, which file is named, and how. gone: --repair removes it."""

    damage: Callable[[Path, Path], object]
    file: str
    what: str
    why: str
    gone: bool = False
    harmless: bool = False


CLIP = "clips/{name}"
LATENTS = f"latents/{CACHE}"
CASES = {
    "cut_video": Case(lambda root, clip: cut(clip / "video.mp4"), CLIP + "/video.mp4", "damaged", "damaged", True),
    "no_video": Case(lambda root, clip: (clip / "video.mp4").unlink(), CLIP + "/video.mp4", "missing", "No such", True),
    "other_video": Case(
        lambda root, clip: write_video(clip / "video.mp4", [np.zeros((64, 64, 3), np.uint8)] * 9, intra=True),
        CLIP + "/video.mp4", "damaged", "9 frames, expected 80", True,
    ),
    "other_size": Case(
        lambda root, clip: write_video(clip / "video.mp4", [np.zeros((32, 32, 3), np.uint8)] * 80, intra=True),
        CLIP + "/video.mp4", "damaged", "32 x 32 pixels, and dataset.json says 64 x 64", True,
    ),
    "scratched_video": Case(
        lambda root, clip: overwrite(clip / "video.mp4"), CLIP + "/video.mp4", "damaged", "Invalid data", True
    ),
    "cut_audio": Case(lambda root, clip: cut(clip / "audio.wav"), CLIP + "/audio.wav", "damaged", "samples", True),
    "no_landmarks": Case(
        lambda root, clip: (clip / "landmarks.npy").unlink(), CLIP + "/landmarks.npy", "missing", "No such", True
    ),
    "short_landmarks": Case(
        lambda root, clip: shape(clip / "landmarks.npy", lambda points: points[:-1]),
        CLIP + "/landmarks.npy", "damaged", "79 rows for 80 frames", True,
    ),
    "nan_landmarks": Case(
        lambda root, clip: spoil(clip / "landmarks.npy"), CLIP + "/landmarks.npy", "damaged", "not finite", True
    ),
    "landmarks_of_another": Case(
        lambda root, clip: shape(clip / "landmarks.npy", lambda points: points[::-1]),
        CLIP + "/landmarks.npy", "mismatched", "by its SHA-256", True,
    ),
    "silenced": Case(
        lambda root, clip: overwrite(clip / "audio.wav"), CLIP + "/audio.wav", "mismatched", "by its SHA-256", True
    ),
    "folder_for_video": Case(
        lambda root, clip: ((clip / "video.mp4").unlink(), write(clip / "video.mp4" / "mine")),
        CLIP + "/video.mp4", "damaged", "directory",
    ),
    "mine_in_damaged_clip": Case(
        lambda root, clip: (cut(clip / "video.mp4"), write(clip / "features" / "emotion.npy")),
        CLIP + "/video.mp4", "damaged", "damaged",
    ),
    "link_to_nowhere": Case(
        lambda root, clip: (shutil.rmtree(clip), clip.symlink_to("/nowhere/clip")),
        CLIP, "missing", "a link to /nowhere/clip",
    ),
    "broken_json": Case(
        lambda root, clip: write(clip / "clip.json", b"{"), CLIP + "/clip.json", "damaged", "Expecting"
    ),
    "other_name": Case(
        lambda root, clip: edit(clip / "clip.json", name="somebody"),
        CLIP + "/clip.json", "damaged", "name is 'somebody'", True,
    ),
    "other_count": Case(
        lambda root, clip: row(root, clip.name, frames=99), "clips.csv", "mismatched", "99 frames of other_count"
    ),
    "no_folder": Case(lambda root, clip: shutil.rmtree(clip), CLIP, "missing", "its folder is not there", True),
    "source_gone": Case(
        lambda root, clip: from_source(clip, path="/nowhere/gone.mp4"), CLIP + "/audio.wav", "damaged", "samples"
    ),
    "source_changed": Case(
        lambda root, clip: from_source(clip, sha256="0" * 64), CLIP + "/audio.wav", "damaged", "samples"
    ),
    "no_row": Case(
        lambda root, clip: write_rows(root, [one for one in read_rows(root).values() if one.name != "no_row"]),
        CLIP, "mismatched", "clips.csv has no row of it",
    ),
    "refused_row": Case(
        lambda root, clip: row(root, clip.name, status="refused", reason="too old"),
        CLIP, "foreign", "refused: too old", harmless=True,
    ),
    "cut_features": Case(
        lambda root, clip: cut(clip / "features" / "mfcc.npy"), CLIP + "/features/mfcc.npy", "damaged", "read", True
    ),
    "nan_features": Case(
        lambda root, clip: spoil(clip / "features" / "mfcc.npy"),
        CLIP + "/features/mfcc.npy", "damaged", "not finite", True,
    ),
    "wide_features": Case(
        lambda root, clip: (
            shape(clip / "features" / "mfcc.npy", lambda steps: np.repeat(steps, 2, axis=1)),
            (clip / SUMS).unlink(),
        ),
        CLIP + "/features/mfcc.npy", "mismatched", "52 numbers, and 26 in most clips", True,
    ),
    "legacy_features": Case(
        lambda root, clip: (
            spoil(clip / "features" / "mfcc.npy"),
            edit(clip / "clip.json", features_remedy="give its sound"),
        ),
        CLIP + "/features/mfcc.npy", "damaged", "not finite",
    ),
    "cut_latents": Case(
        lambda root, clip: cut(root / LATENTS / "cut_latents.npy"), LATENTS + "/{name}.npy", "damaged", "read", True
    ),
    "empty_latents": Case(
        lambda root, clip: write(root / LATENTS / "empty_latents.npy", b""),
        LATENTS + "/{name}.npy", "damaged", "", True,
    ),
    "short_latents": Case(
        lambda root, clip: shape(root / LATENTS / "short_latents.npy", lambda z: z[:, :50]),
        LATENTS + "/{name}.npy", "damaged", "for 80 frames", True,
    ),
    "wide_latents": Case(
        lambda root, clip: (
            shape(root / LATENTS / "wide_latents.npy", lambda z: np.repeat(z, 2, axis=3)),
            (root / LATENTS / "wide_latents.sha256").unlink(),
        ),
        LATENTS + "/{name}.npy", "mismatched", "3 x 8 x 4 numbers, and 3 x 4 x 4 in most clips", True,
    ),
    "latents_of_another": Case(
        lambda root, clip: shape(root / LATENTS / "latents_of_another.npy", lambda z: z[:, ::-1]),
        LATENTS + "/{name}.npy", "mismatched", "by its SHA-256", True,
    ),
    "latents_before_the_clip": Case(
        lambda root, clip: put_sums(root / LATENTS / "latents_before_the_clip.sha256",
                                    {"../../clips/latents_before_the_clip/video.mp4": "0" * 64}),
        LATENTS + "/{name}.npy", "mismatched", "made from another video.mp4", True,
    ),
    "folder_for_latents": Case(
        lambda root, clip: ((root / LATENTS / "folder_for_latents.npy").unlink(),
                            write(root / LATENTS / "folder_for_latents.npy" / "mine")),
        LATENTS + "/{name}.npy", "foreign", "no part", harmless=True,
    ),
    "nan_latents": Case(
        lambda root, clip: spoil(root / LATENTS / "nan_latents.npy"),
        LATENTS + "/{name}.npy", "damaged", "not finite", True,
    ),
    "orphan": Case(
        lambda root, clip: shutil.copy(root / LATENTS / "whole.npy", root / LATENTS / "gone.npy"),
        LATENTS + "/gone.npy", "orphan", "no clip of this name",
    ),
    "dead_writer": Case(
        lambda root, clip: write(root / "clips" / aside_name("new").replace(f".{os.getpid()}.", f".{DEAD}.") / "a"),
        "clips/.new.", "leftover", "killed", True,
    ),
    "old_writer": Case(
        lambda root, clip: old(write(root / "clips" / ".far.elsewhere.1.tmp" / "video.mp4").parent),
        "clips/.far.", "leftover", "killed", True,
    ),
    "living_writer": Case(
        lambda root, clip: write(root / "clips" / aside_name("now") / "video.mp4"),
        "clips/.now.", "leftover", "being written", harmless=True,
    ),
    "old_latents": Case(
        lambda root, clip: old(write(root / LATENTS / ".whole.0a1b2c3d4e5f6a7b.tmp")),
        LATENTS + "/.whole", "leftover", "killed", True,
    ),
    "new_features": Case(
        lambda root, clip: write(clip / "features" / ".mfcc.0a1b2c3d4e5f6a7b.tmp"),
        CLIP + "/features/.mfcc.0a1b2c3d4e5f6a7b.tmp", "leftover", "being written", harmless=True,
    ),
    "dead_claim": Case(
        lambda root, clip: write(root / "claims" / "someone.0", f"{machine()} {DEAD}\n".encode()),
        "claims", "dead claim", "worked on someone is gone", True,
    ),
    "foreign_file": Case(
        lambda root, clip: write(root / "notes.txt"), "notes.txt", "foreign", "no part of a dataset", harmless=True
    ),
    "folder_like_a_leftover": Case(
        lambda root, clip: old(write(root / ".backup of clips.1.tmp" / "mine").parent),
        ".backup", "foreign", "no part of a dataset", harmless=True,
    ),
    "file_like_a_leftover": Case(
        lambda root, clip: old(write(clip / ".mine.tmp")),
        CLIP + "/.mine.tmp", "foreign", "no part of a dataset", harmless=True,
    ),
    "notes_among_claims": Case(
        lambda root, clip: [old(write(root / "claims" / name)) for name in ("notes.txt", "list.7")],
        "claims/notes.txt", "foreign", "no part of a dataset", harmless=True,
    ),
    "foreign_in_clip": Case(
        lambda root, clip: write(clip / "video.bak"), CLIP + "/video.bak", "foreign", "no part", harmless=True
    ),
    "features_of_mine": Case(
        lambda root, clip: write(clip / "features" / "emotion.npy"),
        CLIP + "/features/emotion.npy", "foreign", "no part", harmless=True,
    ),
    "latents_of_mine": Case(
        lambda root, clip: write(root / "latents" / "my-vae" / "latents_of_mine.npy"),
        "latents/my-vae", "foreign", "no part", harmless=True,
    ),
    "undescribed_latents": Case(
        lambda root, clip: write(root / "latents" / "fedcba98-mouth_safe" / "latents.json", b"{}"),
        "latents/fedcba98-mouth_safe/latents.json", "mismatched", "does not say",
    ),
    "file_among_latents": Case(
        lambda root, clip: write(root / "latents" / "notes.txt"),
        "latents/notes.txt", "foreign", "no part", harmless=True,
    ),
    "foreign_latents": Case(
        lambda root, clip: write(root / "latents" / "old" / "z.npy"), "latents/old", "foreign", "no part", harmless=True
    ),
    "broken_quality": Case(
        lambda root, clip: write(root / "quality.csv", b"a,b\n1,2\n"), "quality.csv", "damaged", "columns are others"
    ),
}  # fmt: skip
UNMENDED = {name for name, case in CASES.items() if not case.gone and not case.harmless}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A clip that was prepared from a file, many times over under the names of the cases, with latents."""
    folder = tmp_path_factory.mktemp("check")
    photo = np.asarray(Image.fromarray(skimage.data.astronaut()[:300, 70:370]).resize((240, 240)))
    tone = (4000 * np.sin(np.arange(16000 * 4) * 0.2)).astype(np.int16)
    write_video(folder / "source.mp4", [photo] * 80, audio=tone)
    prepare([folder / "source.mp4"], folder / "made", size=64)
    (made,) = open_clips(folder / "made")
    root = folder / "data"
    create_dataset(root, 64)
    rows = read_rows(folder / "made")
    cache = LatentCache(root, CODEC, "mouth_safe")
    cache.describe()
    for name in (*CASES, "whole"):
        shutil.copytree(made.folder, root / "clips" / name)
        edit(root / "clips" / name / "clip.json", name=name)
        numbered_latents(cache, clip := Clip(root, name, made.frames))
        cache.write_sums(clip, cache.made_from(clip), file_hash(cache.path(name)))
    write_rows(root, [rows["source"]._replace(name=name, identity="Ann") for name in (*CASES, "whole")])
    return root


def checked(root: Path, **options) -> tuple[list[str], str]:
    """The lines of the table, and the error's text."""
    text = StringIO()
    with redirect_stdout(text), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        try:
            check(root, deep=True, **options)
        except UserError as error:
            return text.getvalue().splitlines(), str(error)
    return text.getvalue().splitlines(), ""


@pytest.fixture(scope="module")
def broken(whole, tmp_path_factory) -> Path:
    """Every case at once, each in the clip of its name."""
    root = shutil.copytree(whole, tmp_path_factory.mktemp("broken") / "data")
    for name, case in CASES.items():
        case.damage(root, root / "clips" / name)
    return root


@pytest.fixture(scope="module")
def told(broken) -> tuple[list[str], str]:
    return checked(broken, workers=2)


@pytest.fixture(scope="module")
def repaired(broken, tmp_path_factory) -> tuple[Path, list[str], str]:
    root = shutil.copytree(broken, tmp_path_factory.mktemp("repaired") / "data", symlinks=True)  # times of change stay
    shutil.copystat(broken / "clips" / ".far.elsewhere.1.tmp", root / "clips" / ".far.elsewhere.1.tmp")
    return root, *checked(root, repair=True)


def line_of(lines: list[str], name: str) -> str:
    case = CASES[name]
    file = case.file.format(name=name)
    named = [one for one in lines if one.startswith(case.what) and file in one.split()[1 + case.what.count(" ")]]
    return next((one for one in named if case.why in one), f"{named or lines}")


def test_a_whole_dataset_has_no_faults(whole):
    assert checked(whole, workers=2) == ([], "")


@pytest.mark.parametrize("name", CASES)
def test_every_damage_is_told(told, name):
    lines, error = told
    case = CASES[name]
    line = line_of(lines, name)
    assert line.startswith(case.what) and case.why in line
    assert f"faults: {sum(not case.harmless for case in CASES.values())}," in error and "--repair" in error


def test_nothing_else_is_told(told):
    """But that some clips lack what they must have before training, and why two of them are not removed."""
    lines, _ = told
    notes = [one for one in lines if one.startswith("missing") and "clips have none" in one]
    why = [
        one for one in lines if one.startswith("foreign") and ("folder_for_video" in one or "mine_in_damaged" in one)
    ]
    assert (len(notes), len(why)) == (3, 2) and len(lines) == 1 + len(CASES) + len(notes) + len(why)


@pytest.mark.parametrize("name", CASES)
def test_repair_removes_what_can_be_made_again_and_nothing_else(broken, repaired, name):
    root, lines, error = repaired
    case = CASES[name]
    there = [path for path in root.rglob("*") if str(path.relative_to(root)).startswith(case.file.format(name=name))]
    if name == "dead_claim":
        there = [path for path in there if path.name.startswith("someone")]
    assert ("removed" in line_of(lines, name)) == case.gone
    assert bool(there) != case.gone
    assert f"faults: {len(UNMENDED)}," in error and "--repair" not in error


def test_a_clip_goes_with_its_latents_and_its_row_keeps_who_it_is(repaired):
    root, *_ = repaired
    row = read_rows(root)["cut_video"]
    assert (row.status, row.frames, row.identity) == ("refused", 0, "Ann") and "run prepare again" in row.reason
    assert not (root / LATENTS / "cut_video.npy").exists() and (root / LATENTS / "whole.npy").exists()
    assert read_rows(root)["source_gone"].status == "ok" and (root / "clips" / "source_gone" / "video.mp4").exists()


def test_after_a_repair_only_the_rest_is_left(repaired):
    root, *_ = repaired
    lines, error = checked(root)
    left = {name for name in CASES if CASES[name].what in line_of(lines, name)[:12]}
    assert left == {name for name, case in CASES.items() if not case.gone}
    assert f"faults: {len(UNMENDED)}," in error


def test_a_removed_clip_is_prepared_again(whole, tmp_path):
    """Under its identity, whatever prepare would call it."""
    source = whole.parent / "source.mp4"
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    rows = read_rows(root)
    write_rows(root, [rows["source"]._replace(identity="Ann")])
    cut(root / "clips" / "source" / "landmarks.npy")
    _, error = checked(root, repair=True)
    assert not error and not (root / "clips" / "source").exists()
    prepare([source], root, size=64)
    assert checked(root) == ([], "") and read_rows(root)["source"] == rows["source"]._replace(identity="Ann")


def test_concealed_damage_is_found_by_deep_alone(broken):
    clip = Clip(broken, "scratched_video", 80)
    faults = [check_clip(Job(clip, 64, (), deep), lambda done, total: None).faults for deep in (False, True)]
    assert not faults[0] and [fault.file.name for fault in faults[1]] == ["video.mp4"]


def test_a_clip_in_work_is_left_alone(whole, tmp_path):
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    cut(root / "clips" / "source" / "audio.wav")
    write(root / "claims" / "source.0", f"{machine()} {os.getpid()}\n".encode())
    assert checked(root, repair=True)[1] == "" and (root / "clips" / "source").exists()


def test_clips_on_a_disk_that_is_away_stop_everything(whole, tmp_path):
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    (root / "clips").rename(tmp_path / "away")
    (root / "clips").symlink_to("/nowhere")
    assert "clips: not there, and clips.csv has 1 clips; mount or restore it" in checked(root, repair=True)[1]
    assert read_rows(root)["source"].status == "ok"


def test_a_clip_that_is_made_again_meanwhile_is_left_alone(whole, tmp_path, monkeypatch):
    """Between the look and the repair."""
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    cut(root / "clips" / "source" / "audio.wav")
    looked = module._look

    def then_prepared(jobs, workers):
        found = looked(jobs, workers)
        shutil.copy(whole.parent / "made" / "clips" / "source" / "audio.wav", root / "clips" / "source")
        return found

    monkeypatch.setattr(module, "_look", then_prepared)
    assert "faults: 1," in checked(root, repair=True)[1]
    assert read_rows(root)["source"].status == "ok" and checked(root) == ([], "")


def test_what_cannot_be_removed_does_not_stop_the_rest(whole, tmp_path, monkeypatch):
    root = shutil.copytree(whole, tmp_path / "data")
    cut(root / "clips" / "whole" / "video.mp4")
    cut(root / LATENTS / "other_size.npy")

    def refuse(path):
        raise PermissionError("not today")

    monkeypatch.setattr("difftalk_pl.data.checking.repair.shutil.rmtree", refuse)
    assert "faults: 1," in checked(root, repair=True)[1]
    assert (root / "clips" / "whole").exists() and not (root / LATENTS / "other_size.npy").exists()


@pytest.mark.parametrize("name, content", [("dataset.json", b"{"), ("clips.csv", b"name\n1\n"), ("clips.csv", b"")])
def test_broken_lists_are_told_and_nothing_is_removed(whole, tmp_path, name, content):
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    write(root / name, content)
    before = sorted(root.rglob("*"))
    lines, error = checked(root, repair=True)
    assert any(one.startswith("damaged") and name in one for one in lines) and "faults: 1," in error
    assert {path for path in before if path.name != "claims"} <= set(root.rglob("*"))


def test_exit_codes(whole, tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert "not a prepared dataset" in capsys.readouterr().err
    root = shutil.copytree(whole.parent / "made", tmp_path / "data")
    assert main(["check", str(root)]) == 0
    write(root / "clips.csv", (root / "clips.csv").read_bytes() + b"gone,gone,80,gone.mp4,ok,\n")
    assert main(["check", str(root), "--repair"]) == 1, "its source is not there"
    assert "gone.mp4 is not there" in capsys.readouterr().err
