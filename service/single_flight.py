"""Slow work whose result is shared by all that wait for it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs the coroutine function `work` once for all that ask while it runs. For the event loop's thread only."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._running: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """The result of the run in progress, or of a new one."""
        if self._running is None:
            self._running = asyncio.create_task(self._work())
            self._running.add_done_callback(self._end)
        # A client that disconnects must not cancel the run for others.
        return await asyncio.shield(self._running)

    def _end(self, task: asyncio.Task[T]) -> None:
        self._running = None
        if not task.cancelled():
            # Without a waiter the loop would report an exception as never retrieved.
            task.exception()
