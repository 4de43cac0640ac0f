"""Why clips were refused, among several commands on one dataset."""

import os
from pathlib import Path

import pytest

from difftalk_pl.data.clip_book import ClipBook, change_rows
from difftalk_pl.data.clips import ClipRow, create_dataset, read_rows, write_rows
from difftalk_pl.data.files.claims import Claim, Claims, TakenOverError
from difftalk_pl.data.prepare import prepare, run_claimed
from difftalk_pl.data.refusals import Refusals
from difftalk_pl.data.source import Job, Outcome, Settings, run_job
from difftalk_pl.data.sources.clip_list import Piece
from difftalk_pl.media.files import WriteError
from tests.data.test_prepare import talk

REFUSAL = {"reason": "no face", "source": {"sha256": "0"}}


@pytest.fixture
def job(tmp_path) -> Job:
    (tmp_path / "root").mkdir()
    return Job(Piece("ann", tmp_path / "ann.mp4"), tmp_path / "root", Settings(), ())


class Worker:
    """What `run_claimed` runs: refuses, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[dict | None] = []

    def __call__(self, job: Job, report, ready) -> Outcome:
        self.told.append(job.refused)
        action = "refused" if job.refused is None else "still refused"
        return Outcome(ClipRow(job.name, "", 0, "", "refused", "no face"), action, REFUSAL)


@pytest.mark.parametrize("retry", [False, True])
def test_what_one_command_refuses_others_do_not_try(job, retry):
    worker, claims = Worker(), Claims(job.root / "claims")
    mine, yours = (Refusals(job.root, claims.now(), retry) for _ in range(2))
    actions = [run_claimed(worker, claims, one, job, lambda *_: None).action for one in (mine, yours)]
    assert actions == ["refused", "still refused"] and worker.told == [None, REFUSAL]
    later = Refusals(job.root, claims.now() + 10, retry)
    assert run_claimed(worker, claims, later, job, lambda *_: None).action == ("refused" if retry else "still refused")


def test_a_clip_that_kills_twice_is_left_alone_by_all_who_run(job):
    worker, claims = Worker(), Claims(job.root / "claims")
    mine, yours = (Refusals(job.root, claims.now()) for _ in range(2))
    assert mine.crashed("ann", "killed") == 1
    assert run_claimed(worker, claims, yours, job, lambda *_: None).row.reason == "no face", "once is no proof"
    mine.forget("ann")
    assert [one.crashed("ann", "killed") for one in (mine, yours)] == [1, 2]
    outcome = run_claimed(worker, claims, mine, job, lambda *_: None)
    assert outcome.row.reason == "killed" and worker.told == [None]
    assert Refusals(job.root, claims.now() + 10).known("ann") is None, "a later command tries again"


@pytest.mark.parametrize("ends", ["refused", "raises"])
def test_who_was_taken_over_has_nothing_to_say(job, ends):
    """Another process removed what this one, that stood still, was writing; so it failed."""
    claims = Claims(job.root / "claims")

    def taken_over(job: Job, report, ready) -> Outcome:
        (held,) = claims.folder.glob("ann.0")
        held.rename(held.with_name("ann.1"))
        if ends == "raises":
            raise FileNotFoundError("its folder is gone")
        return Outcome(ClipRow(job.name, "", 0, "", "refused", "cannot be written"), "refused", REFUSAL)

    refusals = Refusals(job.root, claims.now())
    assert run_claimed(taken_over, claims, refusals, job, lambda *_: None) is None
    assert refusals.known("ann") is None


def test_a_refusal_that_another_process_made_up_for_is_not_entered(job):
    create_dataset(job.root, 64)
    claims = Claims(job.root / "claims")
    book, refusals = ClipBook(job.root, claims), Refusals(job.root, claims.now())
    book.enter(run_claimed(Worker(), claims, refusals, job, lambda *_: None))
    refusals.forget("ann")
    write_rows(job.root, [ClipRow("ann", "ann", 9, "", "ok")])
    book.write()
    assert read_rows(job.root)["ann"].status == "ok"


def test_records_that_cannot_be_read_are_none(job):
    refusals = Refusals(job.root, 0)
    refusals.write("ann", REFUSAL)
    assert refusals.known("ann") == REFUSAL
    (job.root / "refused" / "ann.json").write_text("{")
    assert refusals.known("ann") is None and refusals.known("ben") is None


def test_a_full_disk_is_nothing_that_is_held_against_a_clip(tmp_path, monkeypatch):
    video = tmp_path / "ann.mp4"
    talk(video, 4.0)
    (tmp_path / "root").mkdir()
    job = Job(Piece("ann", video), tmp_path / "root", Settings(size=64), ())

    def full(*_, **__):
        raise WriteError("video.mp4: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("difftalk_pl.data.clips.write_video", full)
        outcome = run_job(job, lambda *_: None)
    assert (outcome.action, outcome.refusal) == ("refused", None) and "No space left" in outcome.row.reason
    assert run_job(job, lambda *_: None).action == "prepared"


def test_a_worker_whose_command_was_killed_writes_nothing_down(tmp_path):
    video = tmp_path / "ann.mp4"
    talk(video, 4.0)
    (tmp_path / "root").mkdir()
    job = Job(Piece("ann", video), tmp_path / "root", Settings(size=64), ())

    def nobody(done: int, total: int) -> None:
        raise BrokenPipeError

    claims = Claims(job.root / "claims")
    with pytest.raises(BrokenPipeError):
        run_claimed(run_job, claims, Refusals(job.root, claims.now()), job, nobody)
    assert [path.name for path in job.root.rglob("*")] == ["claims"]


def test_rows_of_who_was_stopped_do_not_replace_those_of_others(tmp_path, monkeypatch):
    """Taken over between reading and writing, it reads again."""
    create_dataset(tmp_path, 64)
    calls = []

    def confirm(self: Claim) -> None:
        if not calls:
            write_rows(tmp_path, [ClipRow("ben", "ben", 9, "", "ok")])
            calls.append("taken over")
            raise TakenOverError("clips.csv")

    def change(rows: dict[str, ClipRow]) -> None:
        rows["ann"] = ClipRow("ann", "ann", 9, "", "ok")

    monkeypatch.setattr(Claim, "confirm", confirm)
    change_rows(tmp_path, Claims(tmp_path / "claims"), change)
    assert sorted(read_rows(tmp_path)) == ["ann", "ben"]


def test_who_looks_what_is_free_forgets_nothing(tmp_path):
    """A clip that its holder gives back at this moment."""
    from difftalk_pl.data.prepare import _free

    class Changing:
        answers = [{"ann"}, set(), set()]

        def busy(self) -> set[str]:
            return self.answers.pop(0)

    jobs = [Job(Piece(name, Path("x.mp4")), tmp_path, Settings(), ()) for name in ("ann", "ben")]
    free, later = _free(jobs, Changing(), None)
    assert [job.name for job in (*free, *later)] == ["ben", "ann"]


def test_a_disk_that_cannot_be_written_tells_this_machines_time(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    claims = Claims(tmp_path / "claims")
    claims.take("ann")
    monkeypatch.setattr(Path, "touch", refuse)
    assert claims.busy() == {"ann"}


def test_spans_beyond_the_end_are_said_so(tmp_path):
    video = tmp_path / "ann.mp4"
    talk(video, 4.0)
    (tmp_path / "list.csv").write_text(f"video,start,stop,name\n{video},0,4,good\n{video},20,30,late\n")
    prepare([tmp_path / "list.csv"], tmp_path / "root", size=64)
    rows = read_rows(tmp_path / "root")
    assert rows["good"].status == "ok" and "from 20 to 30 s" in rows["late"].reason
    assert os.listdir(tmp_path / "root" / "refused") == ["late.json"]
