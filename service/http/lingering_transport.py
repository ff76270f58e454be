"""A transport that is closed without destroying the last response."""

import asyncio

from typing_extensions import override

from service.http.coalescing_transport import CoalescingTransport
from service.http.slow_clients import DiscardedBytes

_PERIOD_SECONDS = 5.0


class LingeringTransport(CoalescingTransport):
    """Ends the sending direction at `close`, and the connection once the client has closed it, too.

    Closing a socket on which bytes arrive resets the connection, and the client may lose the response (RFC 9112, 9.6).
    A client that does not close is disconnected after a few seconds, or once it sends too slowly or too much.

    Attributes:
        lingering: Whether `close` was called. What the client sends from then on is discarded.
    """

    __slots__ = ("_discarded", "_period_seconds", "_timer", "lingering")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        super().__init__(transport, loop)
        self.lingering = False
        self._discarded = DiscardedBytes()
        self._period_seconds = min(_PERIOD_SECONDS, timeout_seconds)
        self._timer: asyncio.TimerHandle | None = None

    def is_closing(self) -> bool:
        """Whether no further response can be sent."""
        return self.lingering or self._transport.is_closing()

    @override
    def write(self, data: bytes) -> None:
        """Send `data`, unless the stream has ended: a fault after the last request can have a response, too."""
        if not self.is_closing():
            super().write(data)

    @override
    def close(self) -> None:
        """Send the buffered data and the end of the stream; close when the client does."""
        if self.is_closing():
            return
        self._flush()
        self.lingering = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(self._period_seconds, self._on_period)

    def close_now(self) -> None:
        """Send the buffered data and close without waiting for the client."""
        super().close()

    def discard(self, data: bytes) -> None:
        """Count bytes that came after `close`."""
        self._discarded.add(len(data))

    def closed(self) -> None:
        """Stop to wait: the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_period(self) -> None:
        if self._discarded.end_period(self._period_seconds):
            self._timer = self._loop.call_later(self._period_seconds, self._on_period)
        else:
            self._transport.abort()
