"""A transport that sends an answer's head together with its body."""

import asyncio
from typing import Any


class CoalescingTransport:
    """`transport`, but a write is held back for the next one of the same turn of the event loop: both leave together.

    uvicorn writes an answer in two pieces, each a system call, a packet, and a client that is woken up: for small
    answers that is most of what sending costs.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` with what is held, or hold it where nothing is."""
        if self._held:
            self._held += data
            self._flush()
        elif data:
            self._held = data
            # Where no second write comes, as before the body of a slow answer.
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
