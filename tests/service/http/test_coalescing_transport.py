"""The transport that joins two writes, on a real socket of the event loop that serves."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvloop

from service.http.coalescing_transport import CoalescingTransport


def served(use: Callable[[CoalescingTransport], object]) -> tuple[bytes, list[dict[str, Any]]]:
    """What a client receives until the connection ends, and what the event loop complained of."""
    complaints: list[dict[str, Any]] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            use(CoalescingTransport(transport, asyncio.get_running_loop()))

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with await loop.create_server(Server, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = await reader.read()
            writer.close()
            return received

    return uvloop.run(scenario()), complaints


def test_all_is_sent_in_its_order_before_a_close() -> None:
    def use(transport: CoalescingTransport) -> None:
        for part in (b"a", b"b", b"", b"c"):
            transport.write(part)
        transport.close()

    assert served(use) == (b"abc", [])


def test_what_nothing_follows_is_sent_all_the_same() -> None:
    def use(transport: CoalescingTransport) -> None:
        transport.write(b"alone")
        asyncio.get_running_loop().call_later(0.05, transport.close)

    assert served(use) == (b"alone", [])


def test_what_is_held_when_the_connection_is_aborted_is_dropped() -> None:
    def use(transport: CoalescingTransport) -> None:
        transport.write(b"late")
        transport.abort()

    assert served(use) == (b"", [])
