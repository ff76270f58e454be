"""Raw HTTP/1.1 over keep-alive connections: any bytes go out, and what comes back must be whole, valid HTTP."""

import asyncio
from dataclasses import dataclass, field

import httptools


@dataclass
class Answer:
    """One response. `status` 0: the connection was closed without one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One connection at a time to the service; opened anew when it was closed."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._settle(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        cut = ConnectionError(f"closed in the middle of an answer: {exc}")
        self._settle(cut if self._answer.status else self._answer)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._answer.body += data

    def on_message_complete(self) -> None:
        if self._answer.status == 100:
            self._answer = Answer()
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._settle(self._answer)

    async def ask(self, request: bytes, patience: float) -> Answer:
        """Send `request` and wait for its answer. Raises `TimeoutError`, `ConnectionError`, `HttpParserError`."""
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._waiting = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        async with asyncio.timeout(patience):
            return await self._waiting

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _settle(self, outcome: Answer | Exception) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if isinstance(outcome, Exception):
            self._waiting.set_exception(outcome)
        else:
            self._waiting.set_result(outcome)
