"""A raw HTTP/1.1 client: it sends any bytes, and requires complete and valid HTTP in response."""

import asyncio
from dataclasses import dataclass, field

import httptools


@dataclass
class Response:
    """A response. Its `status` is 0 if the connection was closed without one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """A keep-alive connection, which can be opened again after it was closed."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._outcome: asyncio.Future[Response] | None = None
        self._expected = 1

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
        truncated = ConnectionError(f"closed in the middle of a response: {exc}")
        self._settle(truncated if self._response.status else self._response)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._response.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._response.body += data

    def on_message_complete(self) -> None:
        if self._response.status == 100:
            self._response = Response()
            return
        if not self._parser.should_keep_alive():
            self.close()
        # Bytes after a request can be taken for a further one, and get a response of their own.
        response, self._response = self._response, Response()
        self._expected -= 1
        if not self._expected:
            self._settle(response)

    async def request(self, data: bytes, timeout_seconds: float, count: int = 1) -> Response:
        """Send `count` requests at once and wait for the last response.

        Raises:
            TimeoutError: There is no complete response after `timeout_seconds`.
            ConnectionError: The connection was closed in the middle of a response.
            httptools.HttpParserError: The response is not valid HTTP.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
        self._expected = count
        self._outcome = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(data)
        async with asyncio.timeout(timeout_seconds):
            return await self._outcome

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _settle(self, outcome: Response | Exception) -> None:
        if self._outcome is None or self._outcome.done():
            return
        if isinstance(outcome, Exception):
            self._outcome.set_exception(outcome)
        else:
            self._outcome.set_result(outcome)
