"""A transport that sends the head of a response together with its body."""

import asyncio
from typing import Any


class CoalescingTransport:
    """Wraps `transport` and joins two writes of one turn of the event loop into one.

    uvicorn writes a response in two pieces. For small responses the second system call, packet and wake-up of the
    client are most of the cost of sending.
    """

    __slots__ = ("_buffer", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = b""

    def __getattr__(self, name: str) -> Any:
        """All other attributes are those of the wrapped transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Buffer the first write of a turn; send the second one with it."""
        if self._buffer:
            self._buffer += data
            self._flush()
        elif data:
            self._buffer = data
            # Sends the data if no second write comes, as before the body of a slow response.
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send the buffered data, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._transport.write(data)
