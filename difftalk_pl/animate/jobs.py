"""Many videos in one go: a list of jobs, each done once, none of which ends the others."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from difftalk_pl.data.references import PROGRESSIVE
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.media.writer import JOB, read_tags
from difftalk_pl.models.pretrained import file_hash

log = logging.getLogger(__name__)
FILES = ("video", "audio", "out")
WITHOUT_EFFECT = ("batch_size", "workers")


def run_jobs(
    path: Path, make: Callable[..., None], options_of: Callable[[dict[str, Any]], dict[str, Any]], model: str
) -> None:
    """Do what is not done yet, in the file's order.

    Args:
        path: a YAML list; relative names in it count from where the command runs.
        make: does a job, called with its options and the `tags` of the file to write.
        options_of: a job's options, typed, from what the file says.
        model: names the weights.

    Raises:
        UserError: the file is no such list, or jobs failed: how many, after all have had their turn.
    """
    jobs, failed = read_jobs(path), 0
    writers = Counter(str(job.get("out")) for job in jobs if isinstance(job, dict))
    for number, job in enumerate(jobs, 1):
        title = f"job {number} of {len(jobs)}"
        try:
            if not isinstance(job, dict):
                raise UserError(f"{job!r}: expected video, audio, out and options by name")
            if writers[str(job.get("out"))] > 1:
                raise UserError(f"{job.get('out')}: several jobs write it")
            options = options_of(job)
            done = _do(make, options, model)
            log.info("%s: %s %s", title, options["out"], "made" if done else "is there already")
        except Exception as error:  # a defect that one job meets must not cost the others
            failed += 1
            known = isinstance(error, UserError | OSError)
            log.error("%s failed: %s", title, error if known else f"{type(error).__name__}: {reason_of(error)}")
            log.debug("", exc_info=not known)
    if failed:
        raise UserError(f"{path}: {failed} of {len(jobs)} jobs failed, see above; the same command tries them again")


def read_jobs(path: Path) -> list[Any]:
    """Raises UserError where the file is no list in YAML."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no readable YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: expected a list of jobs, each with video, audio and out")
    return content


def _do(make: Callable[..., None], options: dict[str, Any], model: str) -> bool:
    """Whether there was anything to do."""
    key, out = _key(options, model), options["out"]
    if out.exists():
        if read_tags(out).get(JOB) == key:
            return False
        raise UserError(f"{out}: is there already, and is not what this job makes; remove it or give another out")
    make(tags={JOB: key}, **options)
    return True


def _plain(value: Any) -> Any:
    """Files by what is in them, since another one may come under the name."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    path = Path(str(value).removeprefix(f"{PROGRESSIVE}:"))
    return file_hash(path) if value is not None and path.is_file() else str(value)


def _key(options: dict[str, Any], model: str) -> str:
    """Names what a file is made of: both inputs, the options and the weights."""
    rest = {name: _plain(value) for name, value in options.items() if name not in (*FILES, *WITHOUT_EFFECT)}
    content = {"model": model, "options": rest, "inputs": [file_hash(options["video"]), file_hash(options["audio"])]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
