"""Jobs in worker processes, each worker known by the job it holds.

`concurrent.futures` gives up the whole pool when one worker is killed and cannot tell which job did it. Here a dead
worker costs its own job and is replaced. A worker whose parent has gone notices at its next report and stops.
"""

import multiprocessing
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, NamedTuple

Report = Callable[[int, int], None]  # done, total


class Event(NamedTuple):
    """What happened to job number `job`.

    start: value is None. progress: (done, total). done: what the function returned. failed: the traceback's text.
    died: the exit code; -9 is a kill, mostly for want of memory.
    """

    job: int
    kind: Literal["start", "progress", "done", "failed", "died"]
    value: Any

    @property
    def is_end(self) -> bool:
        """Whether nothing more comes of its job."""
        return self.kind in ("done", "failed", "died")

    @property
    def trouble(self) -> str:
        """Why the job has no result, in one line; empty where it has one, or is not at its end."""
        if self.kind == "failed":
            return f"unexpected error: {self.value.strip().splitlines()[-1]}"
        if self.kind == "died":
            return f"its process died with exit code {self.value}" + (" (out of memory?)" if self.value == -9 else "")
        return ""


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


def run_jobs(function: Callable[[Any, Report], Any], jobs: Sequence[Any], workers: int) -> Iterator[Event]:
    """Run `function(job, report)` for every job in at most `workers` processes and tell what happens as it happens.

    Args:
        function: importable by name, since processes are spawned; so are jobs and results picklable.
    """
    waiting, running = deque(enumerate(jobs)), dict[int, _Worker]()
    idle: list[_Worker] = []
    try:
        while waiting or running:
            while waiting and len(running) < max(1, workers):
                job, content = waiting.popleft()
                running[job] = _idle(idle) or _start(function)
                yield Event(job, "start", None)
                running[job].connection.send(content)
            yield from _events(running, idle)
    finally:
        for worker in [*running.values(), *idle]:
            worker.process.terminate()
            worker.connection.close()
        for worker in [*running.values(), *idle]:
            worker.process.join(timeout=10)


def _idle(workers: list[_Worker]) -> _Worker | None:
    """One that still lives; the system may have killed it meanwhile."""
    while workers:
        worker = workers.pop()
        if worker.process.is_alive():
            return worker
    return None


def _start(function: Callable[[Any, Report], Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _events(running: dict[int, _Worker], idle: list[_Worker]) -> Iterator[Event]:
    """Wait for the next messages. The end of a pipe means that its worker has died."""
    owners = {worker.connection: job for job, worker in running.items()}
    for connection in wait(list(owners)):
        job = owners[connection]  # type: ignore[index]
        try:
            kind, value = running[job].connection.recv()
        except (EOFError, OSError):
            worker = running.pop(job)
            worker.process.join()
            yield Event(job, "died", worker.process.exitcode)
            continue
        if kind != "progress":
            idle.append(running.pop(job))
        yield Event(job, kind, value)


def _serve(function: Callable[[Any, Report], Any], connection: Connection) -> None:
    """A worker's life: take a job, send its result, until the pipe ends. Termination runs `finally` blocks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which terminates
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            message = ("done", function(job, lambda done, total: connection.send(("progress", (done, total)))))
        except ConnectionError:  # nobody listens any more
            return
        except Exception:
            message = ("failed", traceback.format_exc())
        connection.send(message)
