"""Reads request bodies, and limits their size, their slowness, and the memory that all of them take together."""

import asyncio
import re

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, ClientDisconnected, Overloaded, RequestTimeout, UnsupportedMediaType

_MIN_BYTES_PER_SECOND = 16_384
# A JSON string, terminated or not, so that the scan takes linear time for any body.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


async def read_body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """Read the body of `request` to its end.

    Args:
        request: A request whose body is not read yet.
        max_bytes: The size of the largest body.
        timeout_seconds: The longest pause between two parts of the body. It is also how far the body may fall behind a
            pace of 16 KiB a second, because a client that sends a byte now and then never pauses.

    Raises:
        BodyTooLarge: The body exceeds `max_bytes`; raised before the rest arrives.
        RequestTimeout: The body stalled or was too slow.
        ClientDisconnected: The client closed the connection before the end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        async with asyncio.timeout(timeout_seconds) as timeout:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected("The client closed the connection before its body was complete.")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                if chunk:
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                timeout.reschedule(timeout_seconds + min(clock(), began + size / _MIN_BYTES_PER_SECOND))
    except TimeoutError:
        raise RequestTimeout(
            f"The body stalled after {size} bytes. Send it without pauses of {timeout_seconds:g} s, "
            f"and no slower than {_MIN_BYTES_PER_SECOND} bytes a second."
        ) from None


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes. Send smaller inputs, or fewer per request.")


def require_identity(encoding: str) -> None:
    """Raise `UnsupportedMediaType` for a compressed body: its size would be known only after decompression.

    Args:
        encoding: The value of the header `Content-Encoding`.
    """
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:64]!r} is not supported; send the body as it is.")


def has_too_many_values(body: bytes, limit: int) -> bool:
    """Whether the JSON text `body` holds more than `limit` values; does not build them.

    Thirty megabytes of `{},{},...` would become a gigabyte of objects and block all other requests for seconds.
    """

    def count(text: bytes) -> int:
        return text.count(b",") + text.count(b"{") + text.count(b"[")

    # Strings are removed only if they could make a difference: bodies of images in base64 contain few such characters.
    return count(body) > limit and count(_JSON_STRING.sub(b"", body)) > limit


class BodyBudget:
    """ASGI middleware that limits the total size of the bodies held at once, from their arrival to their response.

    Without it clients could make the process hold the largest body times the length of the queue.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. Reading its body raises `Overloaded` when that would exceed the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_bytes = 0

        async def receive_within_budget() -> Message:
            nonlocal request_bytes
            message = await receive()
            if size := len(message.get("body", b"")):
                request_bytes += size
                self._held_bytes += size
                if self._held_bytes > self._max_bytes:
                    raise Overloaded("Requests in progress hold all the memory there is for bodies.", retry_after=1)
            return message

        try:
            await self._app(scope, receive_within_budget, send)
        finally:
            self._held_bytes -= request_bytes
