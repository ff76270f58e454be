"""Cancels a request's work when its deadline passes or its client disconnects."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from service.errors import ClientDisconnected, Problem

DISCONNECTED = "connection.disconnected"
"""The key in the scope of an HTTP request of a future that is done once the request's connection is lost."""


class Deadline:
    """A context manager that cancels its block at a deadline, or when the client disconnects.

    Unlike `asyncio.timeout` it has two causes, and it raises the problem of the one that occurred. Every request enters
    it, so it costs no more than a timer and a callback.
    """

    __slots__ = ("_cancelling", "_disconnected", "_on_timeout", "_problem", "_seconds", "_task", "_timer")

    def __init__(
        self, seconds: float, on_timeout: Callable[[], Problem], disconnected: asyncio.Future[None] | None = None
    ) -> None:
        """Prepare the deadline.

        Args:
            seconds: The time that the block may take.
            on_timeout: Returns the problem to raise when the block takes longer.
            disconnected: Is done once the client disconnects; the block raises `ClientDisconnected` then.
        """
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._disconnected = disconnected
        self._problem: Callable[[], Problem] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "requests are served in tasks"
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._cancel, self._on_timeout)
        if self._disconnected is not None:
            self._disconnected.add_done_callback(self._on_disconnect)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._disconnected is not None:
            self._disconnected.remove_done_callback(self._on_disconnect)
        task, self._task = self._task, None
        if self._problem is None or task is None:
            return
        # As in `asyncio.timeout`, a cancellation from elsewhere takes precedence.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._problem() from error

    def _on_disconnect(self, _: asyncio.Future[None]) -> None:
        self._cancel(lambda: ClientDisconnected("The client closed the connection before its answer."))

    def _cancel(self, problem: Callable[[], Problem]) -> None:
        # The callback of a disconnect may run after the block has ended.
        if self._problem is None and self._task is not None:
            self._problem = problem
            self._task.cancel()
