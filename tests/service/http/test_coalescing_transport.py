"""`CoalescingTransport` on a real socket of uvloop, the event loop of the service."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvloop

from service.http.coalescing_transport import CoalescingTransport


def served(use: Callable[[CoalescingTransport], object]) -> tuple[bytes, list[dict[str, Any]]]:
    """Return what a client receives until the connection ends, and the errors of the event loop."""
    errors: list[dict[str, Any]] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            use(CoalescingTransport(transport, asyncio.get_running_loop()))

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        async with asyncio.timeout(20), await loop.create_server(Server, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = await reader.read()
            writer.close()
            return received

    return uvloop.run(scenario()), errors


def test_all_writes_are_sent_in_order_before_a_close() -> None:
    def use(transport: CoalescingTransport) -> None:
        for part in (b"a", b"b", b"", b"c"):
            transport.write(part)
        transport.close()

    assert served(use) == (b"abc", [])


def test_a_single_write_is_sent_without_a_close() -> None:
    async def scenario() -> bytes:
        transports: list[CoalescingTransport] = []

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.append(CoalescingTransport(transport, asyncio.get_running_loop()))
                transports[0].write(b"alone")

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20), await loop.create_server(Server, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = await reader.readexactly(5)
            transports[0].close()
            writer.close()
            return received

    assert uvloop.run(scenario()) == b"alone"


def test_a_buffered_write_is_dropped_when_the_connection_is_aborted() -> None:
    def use(transport: CoalescingTransport) -> None:
        transport.write(b"late")
        transport.abort()

    assert served(use) == (b"", [])
