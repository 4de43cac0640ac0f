"""Who works on what, among any number of processes on any number of machines that share a folder. There is no server.

A claim is a file NAME.N that its holder touches every few seconds. One that nobody has touched for `expire` seconds, or
whose process on this machine is gone, is dead, and whoever creates NAME.N+1 takes it over: only one can. A holder
that was stopped meanwhile, and goes on, sees the higher number and gives its work up.

After a claim is taken, look whether the work has been done; before a result is put in its place, ask `held`.
"""

import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote

EXPIRE = 120.0  # s without a sign of life
BEATS = 6  # signs of life in that time
CLAIM = re.compile(r"[^.].*\.\d+")
HOLDER = re.compile(r"\S+ \d+\n")
PROBE = re.compile(r"\.[0-9a-f]{16}")


class TakenOverError(Exception):
    """This process stood still for so long that another one took its work over."""


class Claims:
    """The claims of one folder.

    Args:
        folder: shared by all; made when it is needed.
        expire: seconds without a sign of life after which a claim is dead; the same for all who share the folder.
    """

    def __init__(self, folder: Path, expire: float = EXPIRE) -> None:
        self.folder, self.expire = folder, expire

    def take(self, name: str) -> "Claim | None":
        """A claim to use as a context, or None where a living process has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = self.numbers(name)
        if numbers and self._alive([self.path(name, numbers[-1])]):
            return None
        path = self.path(name, numbers[-1] + 1 if numbers else 0)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(f"{machine()} {os.getpid()}\n")
        except FileExistsError:
            return None
        except OSError:  # the disk is full: nobody must wait for this one
            path.unlink(missing_ok=True)
            raise
        claim = Claim(self, name, path, after_dead=bool(numbers))
        # A claim that is given back between the look and the creation makes two numbers free: who has the higher one
        # sees the lower one, or the other way round.
        below = [number for number in self.numbers(name) if self.path(name, number) != path]
        if not claim.held() or self._alive([self.path(name, number) for number in below]):
            claim.release()
            return None
        for number in numbers:
            self.path(name, number).unlink(missing_ok=True)
        return claim

    @contextmanager
    def turn(self, name: str, patience: float = 600) -> Iterator["Claim"]:
        """Wait for a claim and hold it.

        Raises:
            TimeoutError: others held it all the time.
        """
        deadline, pause = time.monotonic() + patience, 0.01
        while (claim := self.take(name)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder}: {name} is held by others for more than {patience:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        with claim:
            yield claim

    def busy(self) -> set[str]:
        """The names that living processes hold."""
        return {_name_of(path.name) for path in self._alive([self.folder / file for file in self._files()])}

    def numbers(self, name: str) -> list[int]:
        """Of the claims to a name, rising; the last one counts."""
        pattern = re.compile(re.escape(_file_of(name)) + r"\.(\d+)")
        return sorted(int(found[1]) for path in self._files() if (found := pattern.fullmatch(path)))

    def dead(self) -> list[str]:
        """The names that only the dead hold."""
        return sorted({_name_of(file) for file in self._dead_files()} - self.busy())

    def remove_dead(self) -> list[str]:
        """Remove the claims of the dead; says whose work that was."""
        dead = self._dead_files()
        for file in [*dead, *self._old_probes()]:
            (self.folder / file).unlink(missing_ok=True)
        return sorted({_name_of(file) for file in dead})

    def _dead_files(self) -> list[str]:
        files = self._files()
        alive = {path.name for path in self._alive([self.folder / file for file in files])}
        return [file for file in files if file not in alive and self._is_ours(self.folder / file)]

    def path(self, name: str, number: int) -> Path:
        return self.folder / f"{_file_of(name)}.{number}"

    def _files(self) -> list[str]:
        """Claims by their names. What else lies there is nobody's business."""
        try:
            with os.scandir(self.folder) as entries:
                return [entry.name for entry in entries if CLAIM.fullmatch(entry.name) and entry.is_file()]
        except FileNotFoundError:
            return []

    def _old_probes(self) -> list[str]:
        """What `now` leaves where its process is killed."""
        if not self.folder.is_dir():
            return []
        now = self.now()
        probes = [path for path in self.folder.glob(".*") if PROBE.fullmatch(path.name)]
        ages = [(path.name, now - path.stat().st_mtime) for path in probes]
        return [name for name, age in ages if age > self.expire]

    def _alive(self, paths: Sequence[Path]) -> list[Path]:
        """Of claims, those whose holders show signs of life; the clock is asked once for all."""
        now = self.now() if paths else 0.0
        return [path for path in paths if self._is_alive(path, now)]

    def _is_alive(self, path: Path, now: float) -> bool:
        try:
            where, _, process = path.read_text(encoding="utf-8", errors="replace").strip().rpartition(" ")
            if where == machine() and process.isdecimal() and not is_running(int(process)):
                return False
            return now - path.stat().st_mtime < self.expire
        except FileNotFoundError:
            return False

    def _is_ours(self, path: Path) -> bool:
        """Whether a file says what claims say; empty, its writer was killed between creating and writing."""
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        return not content or HOLDER.fullmatch(content) is not None

    def now(self) -> float:
        """The file system's clock, as those of machines differ; this machine's where nothing can be written."""
        probe = self.folder / f".{secrets.token_hex(8)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError:
            return time.time()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


class Claim:
    """A name that is this process's. A context: a thread shows signs of life, the end gives it back.

    Args:
        after_dead: whether it was taken over from a dead one, which may have left something half done.
    """

    def __init__(self, claims: Claims, name: str, path: Path, after_dead: bool = False) -> None:
        self._claims, self._name, self._path = claims, name, path
        self.after_dead = after_dead
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def held(self) -> bool:
        """Whether nobody has taken it over."""
        numbers = self._claims.numbers(self._name)
        return bool(numbers) and self._claims.path(self._name, numbers[-1]) == self._path

    def confirm(self) -> None:
        """Raises TakenOverError where somebody has."""
        if not self.held():
            raise TakenOverError(self._name)

    def release(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> "Claim":
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._over.wait(self._claims.expire / BEATS):
            try:
                os.utime(self._path)
            except OSError:  # taken over, or the disk is away for a moment
                continue


def _file_of(name: str) -> str:
    """A name as part of a file's: any character may be in it."""
    file = name.replace("%", "%25").replace("/", "%2F")
    return f"%2E{file[1:]}" if file.startswith(".") else file


def _name_of(file: str) -> str:
    return unquote(file.rpartition(".")[0])


@cache
def machine() -> str:
    """This system since its start, and what its process numbers mean: containers may share a host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def is_running(process: int) -> bool:
    """Whether a process of this number lives on this machine."""
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a dead one that its parent has not yet noticed still has its number
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2][1] != "Z"
    except OSError:
        return True
