"""For how long work goes on for a client: until it takes too long, or until the client hangs up."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Scope

from service.errors import ClientDisconnected, Problem

DISCONNECTED = "connection.gone"
"""Where the scope of a request over HTTP has a future that is done when its connection is lost."""


class Deadline:
    """`with Deadline(seconds, on_timeout):` cancels its body after `seconds` and raises what `on_timeout` returns.

    With the `scope` of a request also when the client hangs up: it raises `ClientDisconnected` then. Each request is
    within one twice, so that this is no more than a timer and a callback.
    """

    __slots__ = ("_cancelling", "_disconnected", "_loop", "_on_timeout", "_problem", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, on_timeout: Callable[[], Problem], scope: Scope | None = None) -> None:
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._disconnected: asyncio.Future[None] | None = None if scope is None else scope.get(DISCONNECTED)
        self._problem: Callable[[], Problem] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "there is a task wherever something can be awaited"
        self._loop = task.get_loop()
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_later(self._seconds, self._end, self._on_timeout)
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
        # As `asyncio.timeout` does: who else cancelled the task has precedence.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._problem() from error

    def reschedule(self, seconds: float) -> None:
        """Begin anew: from now it takes `seconds`."""
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._end, self._on_timeout)

    def _on_disconnect(self, _: asyncio.Future[None]) -> None:
        self._end(lambda: ClientDisconnected("The client closed the connection before its answer."))

    def _end(self, problem: Callable[[], Problem]) -> None:
        # A hang-up's callback may be under way when the body is left.
        if self._problem is None and self._task is not None:
            self._problem = problem
            self._task.cancel()
