"""Who still uses a model: one that is replaced is closed after the last request that has it, not before."""

import asyncio
from types import TracebackType


class ReferenceCount:
    """`with model.references:` around whatever needs the model's engine. On the event loop's thread only."""

    __slots__ = ("_count", "_idle")

    def __init__(self) -> None:
        self._count = 0
        self._idle: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count and self._idle is not None:
            self._idle.set()

    async def wait_unused(self) -> None:
        """Wait until nobody uses it; nobody new may come, so that this is for ever."""
        if self._count:
            self._idle = asyncio.Event()
            await self._idle.wait()
