"""For how long work goes on for a client: until it takes too long, or until the client hangs up."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Scope

from service.errors import ClientGone, Problem

GONE = "connection.gone"
"""Where the scope of a request over HTTP has a future that is done when its connection is lost."""


class Patience:
    """`with Patience(seconds, late):` cancels its body after so long, and raises the problem that `late` makes.

    With the `scope` of a request also when the client hangs up: it raises `ClientGone` then. Each request is within
    one twice, so that this is no more than a timer and a callback.
    """

    __slots__ = ("_cancelling", "_gone", "_late", "_loop", "_problem", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, late: Callable[[], Problem], scope: Scope | None = None) -> None:
        self._seconds = seconds
        self._late = late
        self._gone: asyncio.Future[None] | None = None if scope is None else scope.get(GONE)
        self._problem: Callable[[], Problem] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "there is a task wherever something can be awaited"
        self._loop = task.get_loop()
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_later(self._seconds, self._end, self._late)
        if self._gone is not None:
            self._gone.add_done_callback(self._hang_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._gone is not None:
            self._gone.remove_done_callback(self._hang_up)
        task, self._task = self._task, None
        if self._problem is None or task is None:
            return
        # As `asyncio.timeout` does: who else cancelled the task has precedence.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._problem() from error

    def extend(self, seconds: float) -> None:
        """Begin anew: from now it takes `seconds`."""
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._end, self._late)

    def _hang_up(self, _: asyncio.Future[None]) -> None:
        self._end(lambda: ClientGone("The client closed the connection before its answer."))

    def _end(self, problem: Callable[[], Problem]) -> None:
        # A hang-up's callback may be under way when the body is left.
        if self._problem is None and self._task is not None:
            self._problem = problem
            self._task.cancel()
