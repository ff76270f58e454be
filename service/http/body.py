"""Reads request bodies, and limits their size, their slowness, and the memory that all of them take together."""

import asyncio
import math
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, ClientDisconnected, Overloaded, RequestTimeout
from service.http.content_coding import content_codings, decode
from service.http.slow_clients import MIN_BYTES_PER_SECOND

# A body that is given up to make room is slower than this, and has arrived for so long that its pace is known.
_SLOW_BYTES_PER_SECOND = 262_144
_MIN_SECONDS = 1.0

_HOLDING = "body.holding"
"""The key in the scope of a request of its part of the `BodyBudget`."""


MESSAGE_CODINGS = "body.codings"
"""The key in the scope of the content codings of a body besides those in its headers, known once it is received.

The gRPC server sets it: a call's headers do not say whether its message is compressed.
"""


async def read_body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """Read the body of `request` to its end, and undo its content codings.

    Args:
        request: A request whose body is not read yet.
        max_bytes: The size of the largest body, as it is sent and decompressed.
        timeout_seconds: The longest pause between two parts of the body. It is also how far the body may fall behind a
            pace of 16 KiB a second, because a client that sends a byte now and then never pauses. A client that sends
            faster cannot save the difference up.

    Raises:
        UnsupportedMediaType: The body has an unknown content coding.
        BodyTooLarge: The body exceeds `max_bytes`; raised before the rest arrives.
        RequestTimeout: The body stalled or was too slow.
        Overloaded: The bodies in progress take too much memory, and this one arrives the slowest.
        MalformedBody: The body cannot be decompressed.
        ClientDisconnected: The client closed the connection before the end.
    """
    codings = content_codings(request.headers.get("content-encoding"))
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    clock = asyncio.get_running_loop().time
    due = clock() + timeout_seconds
    holding: _Holding | None = request.scope.get(_HOLDING)
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
                    break
                due = min(due + len(chunk) / MIN_BYTES_PER_SECOND, clock() + timeout_seconds)
                timeout.reschedule(due)
                if holding is not None and holding.on_eviction is None:
                    holding.begin_arrival(lambda: timeout.reschedule(clock()))
    except TimeoutError:
        if holding is not None and holding.evicted:
            raise _no_memory() from None
        raise RequestTimeout(
            f"The body stalled after {size} bytes. Send it without pauses of {timeout_seconds:g} s, "
            f"and no slower than {MIN_BYTES_PER_SECOND} bytes a second."
        ) from None
    finally:
        if holding is not None:
            holding.end_arrival()
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    codings = (*codings, *request.scope.get(MESSAGE_CODINGS, ()))
    if not codings:
        return body
    hold = (lambda _: None) if holding is None else holding.add
    return await decode(body, codings, max_bytes, hold, _too_large)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes. Send smaller inputs, or fewer per request.")


def _no_memory() -> Overloaded:
    return Overloaded("Requests in progress hold all the memory there is for bodies.", retry_after=1)


class _Holding:
    """The bytes that one request holds of a budget.

    Attributes:
        size: The number of bytes.
        evicted: Whether the request was chosen to be given up.
        on_eviction: Gives the request up; None unless its body is arriving.
    """

    __slots__ = ("_began", "_budget", "evicted", "on_eviction", "size")

    def __init__(self, budget: "BodyBudget") -> None:
        self._budget = budget
        self._began = math.inf
        self.size = 0
        self.evicted = False
        self.on_eviction: Callable[[], None] | None = None

    def add(self, size: int) -> None:
        """Hold `size` bytes more. Raises `Overloaded` if that exceeds the budget."""
        self.size += size
        self._budget.take(self, size)

    def begin_arrival(self, on_eviction: Callable[[], None]) -> None:
        """Note that further parts of the body are to come; `on_eviction` gives the request up."""
        self._began = asyncio.get_running_loop().time()
        self.on_eviction = on_eviction
        self._budget.arriving.add(self)

    def end_arrival(self) -> None:
        """Note that no further part is awaited."""
        self.on_eviction = None
        self._budget.arriving.discard(self)

    def evict(self) -> None:
        """Give up the request, and release its bytes."""
        on_eviction = self.on_eviction
        assert on_eviction is not None, "only a body that is arriving is given up"
        self.end_arrival()
        self._budget.give_back(self.size)
        self.size = 0
        self.evicted = True
        on_eviction()

    def bytes_per_second(self, now: float) -> float:
        """The average pace at which the bytes have come; infinite in the first second."""
        seconds = now - self._began
        return math.inf if seconds < _MIN_SECONDS else self.size / seconds


class BodyBudget:
    """Limits the total size of the bodies held at once, from their arrival to the end of the work on them.

    Without it clients could make the process hold the largest body times the length of the queue. When the budget is
    used up, the body that arrives the slowest is given up: clients that send slowly cannot keep others out.

    Attributes:
        arriving: What is held by requests whose bodies have begun to arrive and have not ended.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self.arriving: set[_Holding] = set()

    def try_take(self, size: int) -> bool:
        """Hold `size` bytes for work after a response, until `give_back`; false if there is no room."""
        if self._held_bytes + size > self._max_bytes:
            return False
        self._held_bytes += size
        return True

    def give_back(self, size: int) -> None:
        """Release `size` bytes."""
        self._held_bytes -= size

    def take(self, holding: _Holding, size: int) -> None:
        """Count `size` bytes more of `holding`. Raises `Overloaded` if they exceed the budget."""
        self._held_bytes += size
        if self._held_bytes <= self._max_bytes:
            return
        now = asyncio.get_running_loop().time()
        pace = min(holding.bytes_per_second(now), _SLOW_BYTES_PER_SECOND)
        paces = {other: other.bytes_per_second(now) for other in self.arriving if other is not holding}
        for other in sorted(paces, key=lambda other: paces[other]):
            if paces[other] >= pace:
                break
            other.evict()
            if self._held_bytes <= self._max_bytes:
                return
        raise _no_memory()


class BodyBudgetMiddleware:
    """ASGI middleware that counts what a request receives against a budget. Reading may raise `Overloaded`."""

    def __init__(self, app: ASGIApp, *, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        holding = scope[_HOLDING] = _Holding(self._budget)

        async def receive_within_budget() -> Message:
            message = await receive()
            if size := len(message.get("body", b"")):
                holding.add(size)
            return message

        try:
            await self._app(scope, receive_within_budget, send)
        finally:
            self._budget.give_back(holding.size)
