"""Jobs in worker processes on the screen: a bar for all of them, and one for each that is in work."""

from rich.markup import escape
from rich.progress import TaskID

from difftalk_pl.data.files.pool import Event
from difftalk_pl.progress import console, progress_bar


class JobBars:
    """A context. Lines that are printed meanwhile stand above the bars.

    Args:
        what: the jobs are, in the plural.
    """

    def __init__(self, what: str, jobs: int) -> None:
        self.what, self._progress = what, progress_bar()
        self._all = self._progress.add_task(what, total=jobs)
        self._each: dict[int, TaskID] = {}

    def __enter__(self) -> "JobBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event, title: str) -> None:
        """What an event changes of its own job's bar."""
        if event.kind == "start":
            self._each[event.job] = self._progress.add_task(escape(title), total=None)
        elif event.kind == "progress":
            done, total = event.value
            self._progress.update(self._each[event.job], completed=done, total=total or None)
        else:
            self._progress.remove_task(self._each.pop(event.job))

    def advance(self, title: str = "", trouble: str = "", reason: str = "") -> None:
        """One more is done; trouble and reason, if there is any, are printed."""
        self._progress.update(self._all, advance=1, description=self.what)
        if trouble:
            console.print(f"[yellow]{trouble}[/] {escape(title)}: {escape(reason)}", soft_wrap=True)

    def wait(self, jobs: int) -> None:
        """Say that all that are left are in the hands of others."""
        self._progress.update(self._all, description=f"{self.what}, {jobs} in the hands of others")
