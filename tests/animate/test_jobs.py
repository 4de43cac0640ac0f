"""Many videos by one YAML file: failures cost their job alone, a second run makes only what is missing."""

import json
import logging

import pytest
import yaml
from PIL import Image

from difftalk_pl.animate.command import animate
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.generation.consistency import Steadiness
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import JOB, TAG, read_tags, write_video
from tests.test_animate import QUICK, WEIGHTS, speech


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    write_video(folder / "person.mp4", perform(seed=0, number=900, seconds=0.4).frames(256), crf=12)
    (folder / "broken.mp4").write_bytes(b"no video")
    speech(folder / "long.wav", 0.4)
    speech(folder / "short.wav", 0.2)
    return folder


def jobs(folder, *listed):
    path = folder / "jobs.yaml"
    path.write_text(yaml.safe_dump(list(listed)))
    return path


def job(folder, out, video="person.mp4", audio="long.wav", **options):
    return {"video": str(folder / video), "audio": str(folder / audio), "out": str(out), **options}


def test_a_bad_job_does_not_end_the_rest_and_a_second_run_makes_what_is_missing(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    listed = jobs(
        folder,
        job(folder, tmp_path / "one.mp4"),
        job(folder, tmp_path / "bad.mp4", video="broken.mp4"),
        job(folder, tmp_path / "odd.mp4", stepz=3),
        "no job",
        job(folder, tmp_path / "two.mp4", audio="short.wav", steps=3, fps="source"),
    )
    with pytest.raises(UserError, match=r"jobs\.yaml: 3 of 5 jobs failed"):
        animate(WEIGHTS, jobs=listed, **QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {"one.mp4", "two.mp4"}
    assert [len(list(read_frames(tmp_path / name))) for name in ("one.mp4", "two.mp4")] == [10, 5]
    assert "broken.mp4" in caplog.text and "stepz" in caplog.text and "no job" in caplog.text
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "two.mp4").unlink()
    with pytest.raises(UserError, match="3 of 5"):
        animate(WEIGHTS, jobs=listed, **QUICK)
    assert (tmp_path / "one.mp4").stat().st_mtime_ns == before["one.mp4"], "it is not made again"
    assert (tmp_path / "two.mp4").exists()
    steps = [read_tags(tmp_path / name)["difftalk_pl"] for name in ("one.mp4", "two.mp4")]
    assert '"steps": 2' in steps[0] and '"steps": 3' in steps[1]


def test_a_file_that_another_job_made_is_never_written_over(folder, tmp_path, caplog):
    out = tmp_path / "out.mp4"
    animate(WEIGHTS, jobs=jobs(folder, job(folder, out)), **QUICK)
    key = read_tags(out)[JOB]
    for changed in (job(folder, out, seed=4), job(folder, out, audio="short.wav")):
        with pytest.raises(UserError, match="1 of 1"):
            animate(WEIGHTS, jobs=jobs(folder, changed), **QUICK)
        assert "remove it or give another out" in caplog.text and read_tags(out)[JOB] == key
    out.write_bytes(b"something else")
    with pytest.raises(UserError, match="1 of 1"):
        animate(WEIGHTS, jobs=jobs(folder, job(folder, out)), **QUICK)
    assert out.read_bytes() == b"something else"


ODD = [
    {"batch_size": 0},
    {"interpolate": 0},
    {"seed": -1},
    {"fps": float("nan")},
    {"crf": 99},
    {"paste": {"feather": float("nan")}},
    {"steadiness": {"noise": "pink"}},
    {"face": 0},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_whatever_is_wrong_with_a_job_the_next_one_is_done(folder, tmp_path, caplog, odd):
    listed = jobs(folder, job(folder, tmp_path / "bad.mp4", **odd), job(folder, tmp_path / "good.mp4", face=1))
    with pytest.raises(UserError, match="1 of 2"):
        animate(WEIGHTS, jobs=listed, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"]
    (line,) = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert "job 1 of 2" in line and "\n" not in line


def test_a_job_changes_single_settings_of_the_commands_groups_and_speed_is_no_part_of_it(folder, tmp_path):
    out = tmp_path / "out.mp4"
    listed = jobs(folder, job(folder, out, steadiness={"noise": "correlated"}))
    for batch_size in (16, 3):
        animate(WEIGHTS, jobs=listed, **QUICK, batch_size=batch_size, steadiness=Steadiness(filter=0.3))
    steady = json.loads(read_tags(out)[TAG])["settings"]["sampler"]["steadiness"]
    assert (steady["noise"], steady["filter"]) == ("correlated", 0.3)


def test_another_reference_under_the_same_name_is_another_job(folder, tmp_path):
    faces = [next(iter(perform(seed=0, number=number, seconds=1).frames(256))) for number in (901, 902)]
    listed = jobs(folder, job(folder, tmp_path / "out.mp4", reference=f"progressive:{tmp_path / 'face.png'}"))
    Image.fromarray(faces[0]).save(tmp_path / "face.png")
    for _ in range(2):
        animate(WEIGHTS, jobs=listed, **QUICK)
    assert str(tmp_path) not in read_tags(tmp_path / "out.mp4")[TAG], "folders are nobody's business"
    Image.fromarray(faces[1]).save(tmp_path / "face.png")
    with pytest.raises(UserError, match="1 of 1"):
        animate(WEIGHTS, jobs=listed, **QUICK)


def test_two_jobs_for_one_file_are_both_refused(folder, tmp_path):
    twice = jobs(folder, job(folder, tmp_path / "out.mp4"), job(folder, tmp_path / "out.mp4", seed=1))
    with pytest.raises(UserError, match="2 of 2"):
        animate(WEIGHTS, jobs=twice, **QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, message", [("{a: 1}", "list of jobs"), ("- [", "no readable YAML"), ("", "list of jobs")]
)
def test_what_is_no_list_of_jobs_is_said(tmp_path, content, message):
    (tmp_path / "jobs.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"jobs\.yaml: .*{message}"):
        animate(WEIGHTS, jobs=tmp_path / "jobs.yaml", **QUICK)


def test_jobs_and_single_files_do_not_mix(folder, tmp_path):
    with pytest.raises(UserError, match="--jobs"):
        animate(WEIGHTS, folder / "person.mp4", jobs=jobs(folder, job(folder, tmp_path / "o.mp4")), **QUICK)
