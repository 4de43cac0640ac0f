"""What `check --repair` does: it removes what a command makes again, and nothing else."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from difftalk_pl.data.checking.clip_faults import Fault, other_files
from difftalk_pl.data.clip_book import change_rows
from difftalk_pl.data.clips import Clip, ClipRow, remove_latents
from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.prepare import CLAIMS
from difftalk_pl.pretrained import file_hash
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

REASON = "its files were damaged and check --repair removed them; run prepare again"


def repair_faults(
    root: Path, rows: Mapping[str, ClipRow], faults: Sequence[Fault], is_broken: Callable[[str], bool]
) -> dict[Fault, str]:
    """Mend what can be mended. Says of every fault that is mended what was done.

    A clip goes only where its source is there with the content that it was made from. Its row stays, as refused, since
    somebody may have edited its identity.

    Args:
        is_broken: looks at a clip once more.
    """
    done: dict[Fault, str] = {}
    broken = {fault.clip for fault in faults if fault.mend == "remake"}
    with progress_bar() as bar:
        task = bar.add_task("repairing", total=len(broken))
        removed = set[str]()
        for name in sorted(broken):
            if _tried(partial(_remove_clip, root, name, rows[name], is_broken), f"clip {name}"):
                removed.add(name)
            bar.advance(task)
    for fault in faults:
        if fault.clip in removed and (fault.mend == "remake" or not fault.file.exists()):
            done[fault] = "removed with its clip; run prepare again"
        elif fault.what == "dead claim":
            Claims(fault.file).remove_dead()
            done[fault] = "removed"
        elif fault.mend == "remove" and _tried(partial(_remove, fault.file), str(fault.file)):
            done[fault] = "removed" if fault.what == "leftover" else f"removed; {fault.remedy.partition(' and ')[2]}"
    return done


def _remove_clip(root: Path, name: str, row: ClipRow, is_broken: Callable[[str], bool]) -> bool:
    """Remove a clip's folder and latents, unless somebody works on it or it could not be made again.

    Latents of a clip that is not there stay: when it is made again, they go.
    """
    clip = Clip(root, name, row.frames)
    claims = Claims(root / CLAIMS)
    claim = claims.take(name)
    if claim is None:
        log.warning("%s: left alone, somebody is working on it", name)
        return False
    with claim:
        if not is_broken(name):
            log.info("%s: left alone, somebody has made it again meanwhile", name)
            return False
        if why := _irreplaceable(clip, row):
            log.warning("%s: left alone, %s", name, why)
            return False
        log.info("%s: removed, prepare makes it again from %s", clip.folder, row.source)
        _refuse(root, claims, name)
        if clip.folder.exists():
            remove_latents(root, name)
            _remove(clip.folder)
    return True


def _irreplaceable(clip: Clip, row: ClipRow) -> str:
    """Why a clip cannot be made again; empty where it can."""
    if not clip.folder.exists():
        return "" if Path(row.source).is_file() else f"its source {row.source} is not there"
    try:
        source: Any = clip.info()["source"]
        path, known = Path(source["path"]), source["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return "clip.json does not say from which file it was made"
    if others := [fault.file.name for fault in other_files(clip) if fault.what == "foreign"]:
        return f"its folder holds what is no part of a clip; move it elsewhere first: {', '.join(others)}"
    if not path.is_file():
        return f"its source {path} is not there"
    return "" if file_hash(path) == known else f"its source {path} has changed since"


def _refuse(root: Path, claims: Claims, name: str) -> None:
    """Enter into clips.csv that a clip is gone."""

    def change(rows: dict[str, ClipRow]) -> None:
        if name in rows:
            rows[name] = rows[name]._replace(frames=0, status="refused", reason=REASON)

    change_rows(root, claims, change)


def _tried(remove: Callable[[], bool], what: str) -> bool:
    """Whether something has been removed; what the disk refuses does not hold up the rest."""
    try:
        return remove()
    except OSError as error:
        log.warning("%s: not removed, %s", what, error)
        return False


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return True
