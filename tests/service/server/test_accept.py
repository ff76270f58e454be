"""A listening socket that several workers share: which of them accepts a connection."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.server.accept import LeastConnectionsListener, SharedConnectionCounts
from service.worker_group import WorkerGroup


class CountedProtocol(asyncio.Protocol):
    """Adds itself to the `connections` of its worker while it is connected."""

    def __init__(self, connections: set["CountedProtocol"]) -> None:
        self._connections = connections

    def connection_made(self, _: asyncio.BaseTransport) -> None:
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self)


class Workers:
    """Listeners of several workers on one socket, all in one event loop."""

    def __init__(self, folder: Path, count: int) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()
        self.connections: list[set[CountedProtocol]] = [set() for _ in range(count)]
        self.listeners = [self._listener(sock.dup(), WorkerGroup(index, count, folder)) for index in range(count)]
        sock.close()

    def _listener(self, sock: socket.socket, worker_group: WorkerGroup) -> LeastConnectionsListener:
        connections = self.connections[worker_group.index]
        return LeastConnectionsListener(
            sock,
            lambda: CountedProtocol(connections),
            lambda: len(connections),
            SharedConnectionCounts(worker_group),
            100,
        )

    def sizes(self) -> list[int]:
        return [len(connections) for connections in self.connections]

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


async def connect(workers: Workers, count: int) -> list[asyncio.StreamWriter]:
    """Open `count` connections at once and wait until all are accepted."""
    before = sum(workers.sizes())
    pairs = await asyncio.gather(*(asyncio.open_connection(*workers.address) for _ in range(count)))
    while sum(workers.sizes()) < before + count:
        await asyncio.sleep(0.001)
    return [writer for _, writer in pairs]


async def disconnect(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(limited())


def test_connections_that_arrive_together_are_spread_evenly(tmp_path: Path) -> None:
    async def scenario() -> None:
        workers = Workers(tmp_path, 3)
        writers = await connect(workers, 30)
        assert max(workers.sizes()) - min(workers.sizes()) <= 2
        workers.close()
        await disconnect(writers)

    run(scenario)


def test_a_worker_that_does_not_accept_keeps_no_connection_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        workers = Workers(tmp_path, 2)
        # A killed worker: its published count stays the lowest.
        workers.listeners[1].close()
        writers = await connect(workers, 20)
        assert workers.sizes() == [20, 0]
        workers.close()
        await disconnect(writers)

    run(scenario)


def test_connections_are_refused_once_the_last_listener_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        workers = Workers(tmp_path, 2)
        workers.close()
        workers.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*workers.address)

    run(scenario)
