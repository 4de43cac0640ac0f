"""Run jobs in worker processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int = 1, timeout: float | None = None
) -> Iterator[tuple[Job, Result | Exception]]:
    """Run `function(job)` for every job and yield (job, result) in the order in which they end.

    A job that raises, takes longer than `timeout` seconds or whose process dies yields its exception (TimeoutError,
    pebble.ProcessExpired) in place of a result; the others go on. One worker without a timeout runs in this process.

    Args:
        function: importable by name, since processes are spawned; jobs and results are picklable.
    """
    if workers <= 1 and timeout is None:
        for job in jobs:
            try:
                yield job, function(job)
            except Exception as error:
                yield job, error
        return
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(workers, len(jobs)))
    pool = ProcessPool(workers, initializer=_start_worker, initargs=[workers], context=context)
    try:
        futures: dict[Future, Job] = {pool.schedule(function, args=[job], timeout=timeout): job for job in jobs}
        for future in as_completed(futures):
            failure = future.exception()
            yield futures[future], failure if isinstance(failure, Exception) else future.result()
    finally:
        pool.stop()
        pool.join()


def failure_reason(error: Exception) -> str:
    """Say in one line why a job has no result."""
    if isinstance(error, ProcessExpired):
        killed = " (killed: out of memory?)" if error.exitcode == -signal.SIGKILL else ""
        return f"its process died with exit code {error.exitcode}{killed}"
    if isinstance(error, TimeoutError):
        return "it took longer than its time limit"
    return f"unexpected error: {type(error).__name__}: {error}"


def _start_worker(workers: int) -> None:
    """Leave Ctrl-C to the parent, which stops the workers, and share the cores with the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))  # for torch, imported later
