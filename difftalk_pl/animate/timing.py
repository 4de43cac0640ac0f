"""How long the parts of a job take."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class StageClock:
    """Seconds by name; time within an inner stage does not count for the outer one.

    Args:
        finish: waits for what a device still has to do, so that it is charged to the right stage.
    """

    def __init__(self, finish: Callable[[], object] = lambda: None) -> None:
        self.finish = finish
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._charge()
        self._open.append(stage)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, timing what it takes to get them and not what is done with them."""
        iterator = iter(items)
        while True:
            with self(stage):
                item = next(iterator, iterator)
            if item is iterator:
                return
            yield item  # type: ignore[misc]

    def _charge(self) -> None:
        self.finish()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now
