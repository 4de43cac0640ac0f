"""score on drawn faces that dlib finds: pairing, clocks, failures; the Judge itself has tests of its own."""

import json
from typing import NamedTuple

import av
import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation import score as module
from difftalk_pl.evaluation.judge import ClipFacts, ClipScore, Measuring
from difftalk_pl.evaluation.score import score
from difftalk_pl.evaluation.score_pairs import pair_up
from difftalk_pl.media import video
from difftalk_pl.media.audio import write_wav
from difftalk_pl.media.writer import write_video

SIZE = 128
PERSON = perform(seed=0, number=900, seconds=1.2)


class FakeJudge:
    """Measures one thing that a test can work out by itself, and remembers what it was given: of every pair the frames
    and masks by method, the facts and the sounds."""

    def __init__(self, measuring, device, **_):
        self.given = []
        FakeJudge.last = self

    def describe(self):
        return {"sync": None}

    def open(self, facts):
        return FakeClip(self, facts)


class FakeClip:
    def __init__(self, judge, facts):
        self.judge, self.facts, self.chunks = judge, facts, []

    def add(self, true, generated, mask):
        assert all(one.shape == true.shape and one.dtype == np.uint8 for one in generated.values())
        self.chunks.append((true, generated, mask))

    def scores(self, samples):
        true = np.concatenate([one for one, _, _ in self.chunks])
        frames = {name: np.concatenate([one[name] for _, one, _ in self.chunks]) for name in samples}
        masks = [mask for _, _, mask in self.chunks]
        mask = None if masks[0] is None else np.concatenate(masks)
        self.judge.given.append(Given(frames["video"], true, samples, self.facts, mask))
        errors = {name: float(np.abs(one.astype(float) - true).mean()) for name, one in frames.items()}
        return {name: ClipScore({"psnr": error or None}, {}, None) for name, error in errors.items()}


class Given(NamedTuple):
    video: np.ndarray
    true: np.ndarray
    samples: dict
    facts: ClipFacts
    mask: np.ndarray | None


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr(module, "Judge", FakeJudge)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """true: a, b, c at 1.2 s; ours: a 0.4 s shorter and with sound, b broken, d unknown to the true ones."""
    root = tmp_path_factory.mktemp("score")
    frames = list(PERSON.frames(SIZE))
    for folder in ("true", "ours"):
        (root / folder).mkdir()
    for name in ("a", "b", "c"):
        write_video(root / "true" / f"{name}.mp4", iter(frames), crf=12, audio=PERSON.audio, rate=16000)
    darker = (np.clip(frame.astype(int) - 20, 0, 255).astype(np.uint8) for frame in frames[:20])
    write_video(root / "ours" / "a.mp4", darker, crf=12)
    (root / "ours" / "b.mp4").write_bytes(b"not a video")
    write_video(root / "ours" / "d.mp4", iter(frames), crf=12)
    return root


def run(folders, tmp_path, *videos, reference=("true",), **options):
    paths = [[folders / name for name in names] for names in (videos, reference)]
    score(*paths, out=tmp_path / "out.json", device="cpu", measuring=Measuring(lpips=None), **options)
    return json.loads((tmp_path / "out.json").read_text())


def test_folders_are_paired_by_name_and_what_is_bad_is_counted_with_its_reason(folders, tmp_path):
    content = run(folders, tmp_path, "ours", method="Ours")
    assert content["clips"]["scored"] == 1 and content["clips"]["not_scored"] == ["b", "c", "d"]
    reasons = content["clips"]["reasons"]
    assert "b.mp4" in reasons["b"] and "no video for it" in reasons["c"] and "no reference for it" in reasons["d"]
    ours = content["methods"]["Ours"]
    assert ours["per_clip"]["a"]["frames"] == 20 and ours["per_clip"]["b"]["psnr"] is None
    assert ours["failed"]["psnr"] == {name: reasons[name] for name in "bcd"} and ours["undefined"]["psnr"] == 3
    assert content["methods"]["ground truth"]["per_clip"]["a"]["psnr"] is None, "against itself"
    assert content["clips"]["frames_left_out"] == {"a": {"video": 0, "reference": 10}}


def test_frames_are_compared_at_the_same_times_with_landmarks_mask_and_own_sound(folders, tmp_path):
    content = run(folders, tmp_path, "ours/a.mp4", reference=("true/a.mp4",), method="Ours")
    (given,) = FakeJudge.last.given
    assert content["methods"]["Ours"]["overall"]["psnr"] == pytest.approx(20, abs=3), "drawn 20 darker"
    assert given.samples["video"] is None and given.samples["reference"].shape == (20 * 640,)
    assert np.abs(given.samples["reference"].astype(int)).max() > 500
    drawn, landmarks = PERSON.landmarks()[:20], given.facts.landmarks
    assert np.abs(landmarks[:, 27:48] - drawn[:, 27:48]).mean() < 0.02, "eyes and nose where they were drawn"
    assert given.mask.shape == (20, SIZE, SIZE) and 0.05 < given.mask.mean() < 0.5
    assert (given.facts.frames, given.facts.size) == (20, SIZE)
    middle = (drawn[:, 48:60].mean(axis=1) * SIZE).astype(int)
    assert all(given.mask[t, y, x] for t, (x, y) in enumerate(middle))


def test_a_silent_video_may_take_the_sound_of_its_reference(folders, tmp_path):
    content = run(folders, tmp_path, "ours/a.mp4", reference=("true/a.mp4",), audio="reference", frames=8)
    (given,) = FakeJudge.last.given
    assert np.array_equal(given.samples["video"], given.samples["reference"])
    assert len(given.samples["video"]) == 8 * 640 and len(given.true) == 8
    assert "ours" in content["methods"], "called by its folder"


def test_faceless_references_and_other_sizes(tmp_path):
    rng = np.random.default_rng(0)
    write_video(tmp_path / "wall.mp4", (np.full((SIZE, SIZE, 3), rng.integers(99), np.uint8) for _ in range(5)))
    write_video(tmp_path / "wide.mp4", (np.full((SIZE, 2 * SIZE, 3), 99, np.uint8) for _ in range(5)))
    walls = [tmp_path / "wall.mp4", tmp_path / "wide.mp4", tmp_path / "wall.mp4"]
    out = tmp_path / "out.json"
    score(walls, [*walls[:2], tmp_path / "wide.mp4"], out, method="m", device="cpu")
    content = json.loads(out.read_text())
    failed = content["methods"]["m"]["failed"]
    assert "no face" in failed["mouth_psnr"]["wall"] and "wall" not in failed["psnr"], "the whole frame is measured"
    assert FakeJudge.last.given[0].facts.landmarks is None and FakeJudge.last.given[0].mask is None
    assert "expected a square; --crop face" in content["clips"]["reasons"]["wide"]
    assert "128 x 128, its reference 256 x 128; scale" in content["clips"]["reasons"]["wall (3)"]


def test_the_square_around_the_face_is_cut_from_both(folders, tmp_path):
    wide = tmp_path / "wide.mp4"
    frames = [np.pad(frame, ((0, 0), (40, 88), (0, 0))) for frame in PERSON.frames(SIZE)][:10]
    write_video(wide, iter(frames), crf=12)
    score([wide], [wide], tmp_path / "out.json", method="same", crop="face", device="cpu")
    given = FakeJudge.last.given[-1]
    assert given.true.shape[1] == given.true.shape[2] <= SIZE and np.array_equal(given.video, given.true)
    assert given.facts.landmarks.min() > 0 and given.facts.landmarks.max() < 1


def test_more_files_on_one_side_are_not_dropped(tmp_path):
    pairs = pair_up([tmp_path / "a.mp4", tmp_path / "x" / "a.mp4"], [tmp_path / "b.mp4"])
    assert [(pair.name, pair.reference) for pair in pairs] == [("a", tmp_path / "b.mp4"), ("a (2)", None)]


def test_nothing_scored_is_an_error_that_leaves_the_reasons(folders, tmp_path):
    with pytest.raises(UserError, match=r"none of 1 clips.*b\.mp4"):
        run(folders, tmp_path, "ours/b.mp4", reference=("true/b.mp4",))
    assert json.loads((tmp_path / "out.json").read_text())["clips"]["failed"] == 1


def test_sizes_are_those_of_all_references_so_that_a_failure_does_not_part_methods(folders, tmp_path):
    """One method has a broken video, the other has not; both are measured alike."""
    broken = run(folders, tmp_path, "ours", method="Ours")
    whole = run(folders, tmp_path, "true", method="Theirs")
    assert broken["clips"]["failed"] == 3 and whole["clips"]["failed"] == 0
    assert broken["protocol"]["data"]["frame_size"] == whole["protocol"]["data"]["frame_size"] == SIZE
    assert broken["protocol_hash"] == whole["protocol_hash"]
    with pytest.raises(UserError, match="none of 1 clips"):
        run(folders, tmp_path, "ours/b.mp4", reference=("true/b.mp4",))
    assert json.loads((tmp_path / "out.json").read_text())["protocol_hash"] == whole["protocol_hash"]


def test_sizes_that_differ_are_listed_and_a_cut_face_has_none(folders, tmp_path):
    small = tmp_path / "small.mp4"
    write_video(small, PERSON.frames(64), crf=12)
    paths = [folders / "true" / "a.mp4", small]
    score(paths, paths, tmp_path / "out.json", method="m", device="cpu", frames=2)
    found = json.loads((tmp_path / "out.json").read_text())["protocol"]
    assert found["data"]["frame_size"] == [64, SIZE] and found["generation"] == {"audio": "own"}
    score(paths[:1], paths[:1], tmp_path / "out.json", method="m", device="cpu", frames=2, crop="face")
    data = json.loads((tmp_path / "out.json").read_text())["protocol"]["data"]
    assert data["frame_size"] == "of the face" and data["crop"] == "face" and "dlib" in data["landmarks"]


@pytest.mark.parametrize("side", ["video", "reference"])
@pytest.mark.parametrize("kind", ["sound", "nothing", "cut", "garbage"])
def test_a_damaged_file_costs_its_clip_alone(folders, tmp_path, kind, side):
    good, bad = folders / "true" / "a.mp4", tmp_path / "bad.mp4"
    content = bytearray(good.read_bytes())
    if kind == "sound":
        write_wav(bad, PERSON.audio, 16000)
    elif kind == "garbage":
        content[1000 : len(content) // 2] = bytes(len(content) // 2 - 1000)
    if kind != "sound":
        bad.write_bytes({"nothing": b"", "cut": content[: len(content) // 2]}.get(kind, content))
    pair = ([bad], [good]) if side == "video" else ([good], [bad])
    out = tmp_path / "out.json"
    score([*pair[0], good], [*pair[1], good], out, method="m", device="cpu", frames=30)
    clips = json.loads(out.read_text())["clips"]
    assert clips["scored"] == 1 and "bad.mp4" in next(iter(clips["reasons"].values()))


def test_a_stream_that_changes_its_size_costs_its_clip_alone(folders, tmp_path):
    parts = []
    for side in (SIZE, 64):
        write_stream(tmp_path / f"{side}.ts", list(PERSON.frames(side))[:10])
        parts.append((tmp_path / f"{side}.ts").read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    good, both, out = folders / "true" / "a.mp4", tmp_path / "both.ts", tmp_path / "out.json"
    for pair in ([both, good], [good, both]):
        score([pair[0], good], [pair[1], good], out, method="m", device="cpu")
        clips = json.loads(out.read_text())["clips"]
        assert clips["scored"] == 1 and "is 64 x 64, the first one 128 x 128" in next(iter(clips["reasons"].values()))


def write_stream(path, frames):
    """A transport stream: such files can be strung together."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def test_a_tag_in_another_encoding_is_no_damage(folders, tmp_path):
    tagged = tmp_path / "tagged.mp4"
    write_video(tagged, PERSON.frames(SIZE), tags={"title": "Muenchen"})
    tagged.write_bytes(tagged.read_bytes().replace(b"Muenchen", "München ".encode("latin-1")))
    assert run(folders, tmp_path, tagged, reference=(tagged,), frames=2)["clips"]["scored"] == 1


def test_what_the_decoder_raises_itself_costs_its_clip_alone(folders, tmp_path, monkeypatch):
    def no_such_track(container, path):
        raise IndexError("list index out of range")

    monkeypatch.setattr(video, "video_stream", no_such_track)
    with pytest.raises(UserError, match=r"none of 1 clips.*a\.mp4: damaged: list index"):
        run(folders, tmp_path, "ours/a.mp4", reference=("true/a.mp4",))


def refused_target(folders, out):
    """The message, without any work done."""
    FakeJudge.last = None
    with pytest.raises(UserError) as refusal:
        score([folders / "true" / "a.mp4"], [folders / "true" / "a.mp4"], out, method="m", device="cpu")
    assert FakeJudge.last is None, "before any work"
    return str(refusal.value)


def test_a_target_that_cannot_be_written_is_refused_before_the_work(folders, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a folder; give a file" in refused_target(folders, tmp_path)
    assert f"{tmp_path / 'file'} is a file" in refused_target(folders, tmp_path / "file" / "deep" / "out.json")


@pytest.mark.parametrize(
    "content, message",
    [
        ({"methods": {}, "model": None}, "scores of a model, by test or validate"),
        ({"other": 1}, "score did not write it"),
        ([], "score did not write it"),
    ],
)
def test_files_of_others_are_not_written_over(folders, tmp_path, content, message):
    out = tmp_path / "results.json"
    out.write_text(json.dumps(content))
    assert message in refused_target(folders, out) and json.loads(out.read_text()) == content
    assert "score did not write it" in refused_target(folders, folders / "true" / "a.mp4")


def test_its_own_file_is_written_over(folders, tmp_path):
    first = run(folders, tmp_path, "ours/a.mp4", reference=("true/a.mp4",), frames=2)
    assert run(folders, tmp_path, "ours/a.mp4", reference=("true/a.mp4",), frames=2) == first


def test_the_command_takes_several_references(folders, tmp_path):
    out = tmp_path / "out.json"
    paths = [str(folders / name) for name in ("true/a.mp4", "true/c.mp4")]
    arguments = ["score", *paths, "--reference", *paths, "--out", str(out), "--measuring.lpips", "null"]
    assert main([*arguments, "--frames", "2", "--device", "cpu", "--method", "copy"]) == 0
    assert json.loads(out.read_text())["clips"]["scored"] == 2
