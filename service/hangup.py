"""Work for a client that hung up is cancelled."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from service.problems import ClientGone

# Most answers are out before anybody can lose patience; only for the others is a watching task worth its cost.
_PATIENCE_SECONDS = 0.05


class CancelOnHangup:
    """`async with CancelOnHangup(receive):` cancels its body when the client disconnects, and raises `ClientGone`.

    The request's body must have been read: from then on `receive` waits for the disconnect.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and self._task is not None:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGone("The client closed the connection before its answer.") from error

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()
