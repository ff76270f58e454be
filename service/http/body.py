"""Reading requests' bodies, with limits on size, slowness and all of them together enforced while they arrive."""

import re
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, ClientDisconnected, Overloaded, Problem, RequestTimeout, UnsupportedMediaType
from service.http.deadline import Deadline

_SLOWEST_BYTES_PER_SECOND = 16_384
# A JSON string, closed or not: so that the scan stays linear whatever comes.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


async def read_body(request: Request, max_bytes: int, patience_seconds: float) -> bytes:
    """The whole body.

    Raises `BodyTooLarge` as soon as it is known to exceed `max_bytes`; `RequestTimeout` where it pauses for
    `patience_seconds`, or is so much behind a body of 16 KiB a second; `ClientDisconnected` on a hang-up.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    begun = time.monotonic()

    def stalled() -> Problem:
        return RequestTimeout(
            f"The body stalled after {size} bytes. Send it without pauses of {patience_seconds:g} s, "
            f"and no slower than {_SLOWEST_BYTES_PER_SECOND} bytes a second."
        )

    with Deadline(patience_seconds, stalled) as patience:
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
            # A client that sends a byte now and then never pauses: it must have a pace as well.
            left = begun + patience_seconds + size / _SLOWEST_BYTES_PER_SECOND - time.monotonic()
            patience.reschedule(min(patience_seconds, left))


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes. Send smaller inputs, or fewer per request.")


def require_identity(encoding: str) -> None:
    """Refuse a compressed body (`UnsupportedMediaType`): its size would be known only once it is unpacked."""
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:64]!r} is not supported; send the body as it is.")


def has_too_many_values(body: bytes, most: int) -> bool:
    """Whether JSON text holds more than `most` values, told without building them.

    Thirty megabytes of `{},{},...` would become a gigabyte of objects, and stop all other requests for seconds.
    """

    def marks(text: bytes) -> int:
        return text.count(b",") + text.count(b"{") + text.count(b"[")

    # Base64 has none of the marks; only for bodies of many texts or of mischief is the second look needed.
    return marks(body) > most and marks(_JSON_STRING.sub(b"", body)) > most


class BodyBudget:
    """Pure ASGI: bounds the bytes of all bodies that are held at once, from their arrival to their request's answer.

    Without it the largest body times the length of the queue would be what clients can make the process hold.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; reading its body raises `Overloaded` where that would exceed the budget."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held = 0

        async def receive_within_budget() -> Message:
            nonlocal held
            message = await receive()
            if size := len(message.get("body", b"")):
                held += size
                self._held += size
                if self._held > self._max_bytes:
                    raise Overloaded("Requests in progress hold all the memory there is for bodies.", retry_after=1)
            return message

        try:
            await self._app(scope, receive_within_budget, send)
        finally:
            self._held -= held
