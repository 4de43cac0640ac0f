"""One video from its address to a whole, checked file, through yt-dlp: tries, waits, and what became of it.

A try leaves what it has in FOLDER/.partial/NAME and the next one goes on from there, in this run or a later one. Only a
checked file gets a name in FOLDER.
"""

import errno
import logging
import os
import random
import re
import shutil
import time
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from yt_dlp import YoutubeDL
from yt_dlp.utils import YoutubeDLError

from difftalk_pl.data.files.claims import Claim
from difftalk_pl.data.files.pool import Report
from difftalk_pl.data.hdtf.files import SLACK, Shape, Unfit, check_original, video_file
from difftalk_pl.data.hdtf.ledger import Ledger, Record, done
from difftalk_pl.data.hdtf.tables import HDTFVideo
from difftalk_pl.data.hdtf.trouble import Trouble, chain_of, trouble_of
from difftalk_pl.data.sources.layouts import VIDEO_SUFFIXES
from difftalk_pl.errors import UserError
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.remux import join

log = logging.getLogger(__name__)

PARTIAL = ".partial"  # below the folder of the videos
FULL = (errno.ENOSPC, errno.EDQUOT)
DAMAGED = ".damaged"  # behind the name of a file that was whole once
SILENCE = 30.0  # seconds without a byte after which a connection is given up
BEAT = 0.5  # seconds between two reports


class Patience(NamedTuple):
    """How long a video is worth it.

    Args:
        tries: in a run, in succession without a byte more than before.
        first, longest: seconds to wait after the first failed try, doubled after each further one; and at most.
    """

    tries: int = 5
    first: float = 5.0
    longest: float = 600.0

    def wait(self, failures: int) -> float:
        """Spread by half either way, so that several downloads do not come back together."""
        return min(self.first * 2 ** (failures - 1), self.longest) * random.uniform(0.5, 1.5)


class Job(NamedTuple):
    """A video to fetch.

    Args:
        before: what the ledger said when the run began; where it says something else now, another has done the work.
        height: lines of the picture at most; None for the best there is.
        cookies: the content of a file of cookies, as browsers' extensions write it.
    """

    video: HDTFVideo
    folder: Path
    before: Record
    patience: Patience = Patience()
    height: int | None = None
    cookies: str | None = None

    @property
    def partial(self) -> Path:
        return self.folder / PARTIAL / self.video.name


def fetch_video(job: Job, report: Report) -> Record | None:
    """Fetch one video and write down what became of it; None where another process is at it.

    Args:
        report: called with MB that are here and MB in all, 0 for not known.
    """
    ledger, name = Ledger(job.folder), job.video.name
    try:
        claim = ledger.claims.take(name)
    except OSError as error:
        return ledger.note(_refused_by_disk(job, error))
    if claim is None:
        return None
    with claim:
        if (now := ledger.read(name)) != job.before:
            return now
        try:
            record = _found(job) or _fetch(job, ledger, claim, report)
        except UserError as error:  # of a file that somebody put there
            record = Record(name, "failed", str(error), job.before.tries)
        except ConnectionError:  # nobody listens to the reports any more
            raise
        except OSError as error:
            record = _refused_by_disk(job, error)
        if record is None or not claim.held():
            return None
        record = ledger.note(record)
        if record.state != "failed":
            shutil.rmtree(job.partial, ignore_errors=True)
        return record


def _refused_by_disk(job: Job, error: OSError) -> Record:
    if error.errno in FULL:  # others may have room for theirs
        shutil.rmtree(job.partial, ignore_errors=True)
    return Record(job.video.name, "failed", f"{error.filename or job.folder}: {error.strerror}", job.before.tries + 1)


def read_cookies(path: Path) -> str:
    """The content of a file of cookies. Raises UserError where it is none."""
    try:
        content = path.read_text(encoding="utf-8")
        list(YoutubeDL({"cookiefile": StringIO(content), "logger": _Silent()}).cookiejar)
    except (OSError, UnicodeDecodeError, YoutubeDLError) as error:
        raise UserError(f"{path}: no file of cookies ({error}); export one from a browser as cookies.txt") from error
    return content


def _found(job: Job) -> Record | None:
    """A file in the right place that the ledger does not know: put there by hand, or by a run that was killed then.

    One that was downloaded here and has been damaged since is set aside. Raises UserError where it is somebody's.
    """
    path = video_file(job.folder, job.video)
    if path is None:
        return None
    try:
        return done(job.video.name, path, check_original(path, job.video), str(path))
    except MediaError as error:
        if (path.name, job.video.url) != (job.before.file, job.before.origin):
            raise UserError(f"{error}; remove or replace it, and the same command fetches the video") from error
        damaged = path.with_name(f"{path.name}{DAMAGED}")
        log.warning("%s; it is now called %s, and the video is fetched again", error, damaged.name)
        os.replace(path, damaged)
        return None


def _fetch(job: Job, ledger: Ledger, claim: Claim, report: Report) -> Record | None:
    patience = job.patience._replace(tries=1) if ledger.is_cut_off() else job.patience
    tries, failures, most, spoilt = job.before.tries, 0, 0, 0
    while True:
        tries += 1
        try:
            path, shape = _attempt(job, report)
            if not claim.held():
                return None
            target = job.folder / f"{job.video.name}{path.suffix}"
            _flush(path)
            os.replace(path, target)
            return done(job.video.name, target, shape, job.video.url, tries)
        except Unfit as error:
            trouble = Trouble(_discard(error, job))
        except MediaError as error:
            spoilt += 1
            trouble = Trouble(f"what came is no whole video: {_discard(error, job)}", again=spoilt < 2)
        except Trouble as error:
            trouble = error
        here = _size(job.partial)
        most, failures = max(most, here), 1 if here > most else failures + 1
        wait = max(patience.wait(failures), trouble.wait)
        if not trouble.again or failures >= patience.tries or trouble.wait > patience.longest:
            asked = f" (asks to wait {trouble.wait:.0f} s)" if trouble.wait > patience.longest else ""
            state = "gone" if trouble.gone else "failed"
            return Record(job.video.name, state, trouble.reason + asked, tries, remote=trouble.remote)  # type: ignore[arg-type]
        _wait(wait, report)


def _discard(error: MediaError, job: Job) -> str:
    """Throw away what came; says why, without the place where it was."""
    shutil.rmtree(job.partial, ignore_errors=True)
    return str(error).removeprefix(f"{job.partial}{os.sep}")


def _attempt(job: Job, report: Report) -> tuple[Path, Shape]:
    """One try: a checked file in the partial folder. Raises Trouble and MediaError."""
    with _Site(job, report) as site:
        info = site.ask()
        formats = info.pop("requested_formats", None) or [{}]
        parts = [site.get(info | one) for one in formats]
    if len(parts) > 1 or parts[0].suffix not in VIDEO_SUFFIXES:
        path = join(parts[0], parts[-1], job.partial / "whole")
    else:
        path = parts[0]
    return path, check_original(path, job.video)


class _Site:
    """yt-dlp, as a context, for one try."""

    def __init__(self, job: Job, report: Report) -> None:
        self.job, self.report, self.last = job, report, 0.0
        options: dict[str, Any] = {
            "format": "bv*+ba/b",
            "format_sort": [f"res:{job.height}"] if job.height else [],
            "logger": _Silent(),
            "noprogress": True,
            "noplaylist": True,
            "color": "never",
            "retries": 0,  # of whole files: ours
            "fragment_retries": 3,
            "skip_unavailable_fragments": False,
            "socket_timeout": SILENCE,
            "progress_hooks": [self._hook],
        }
        if job.cookies is not None:
            options["cookiefile"] = StringIO(job.cookies)
        self.site = YoutubeDL(options)

    def __enter__(self) -> "_Site":
        return self

    def __exit__(self, *_: object) -> None:
        self.site.close()

    def ask(self) -> dict[str, Any]:
        """What there is, with the formats chosen. Raises Trouble."""
        try:
            info = self.site.extract_info(self.job.video.url, download=False)
        except YoutubeDLError as error:
            raise trouble_of(error, asking=True) from error
        if not info or info.get("entries") is not None:
            raise Trouble("the address is no single video")
        if info.get("live_status") in ("is_live", "is_upcoming"):
            raise Trouble("the address is a live broadcast")
        needed = max(clip.stop for clip in self.job.video.clips)
        if info.get("duration") and info["duration"] < needed - SLACK:
            raise Trouble(
                f"the video at its address is {info['duration']:g} s long and its last clip ends at {needed:g} s: "
                "another one, or shortened"
            )
        return info

    def get(self, part: dict[str, Any]) -> Path:
        """A format as a file; goes on where an earlier try stopped, if the server can. Raises Trouble."""
        name = re.sub(r"\W+", "_", str(part.get("format_id") or "video"))
        path = self.job.partial / f"{name}.{re.sub(r'[^a-z0-9]', '', str(part.get('ext')).lower())}"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            whole, _ = self.site.dl(str(path), part)
        except ConnectionError:  # nobody listens to the reports any more
            raise
        except (YoutubeDLError, OSError) as error:
            if full := next((one for one in chain_of(error) if getattr(one, "errno", None) in FULL), None):
                raise full from error
            raise trouble_of(error, asking=False) from error
        if not whole or not path.is_file():
            raise Trouble("nothing came", again=True, remote=True)
        return path

    def _hook(self, status: dict[str, Any]) -> None:
        if time.monotonic() - self.last >= BEAT:
            self.last = time.monotonic()
            total = status.get("total_bytes") or status.get("total_bytes_estimate") or 0
            self.report(int(status.get("downloaded_bytes") or 0) >> 20, int(total) >> 20)


class _Silent:
    """What yt-dlp says comes as errors, too."""

    def debug(self, message: str) -> None: ...

    info = warning = error = debug


def _flush(path: Path) -> None:
    """To the disk, so that no power cut leaves a name without its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0


def _wait(seconds: float, report: Report) -> None:
    """Reports meanwhile: that ends the process where nobody listens any more."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, BEAT))
        report(0, 0)
