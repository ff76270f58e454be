"""A listening socket of several workers: who accepts, and who does not."""

import asyncio
import contextlib
import socket
from pathlib import Path

from service.server.accept import LeastConnectionsListener, SharedConnectionCounts


class Guest(asyncio.Protocol):
    """A connection that is counted where it came in."""

    def __init__(self, room: set["Guest"]) -> None:
        self._room = room

    def connection_made(self, _: asyncio.BaseTransport) -> None:
        self._room.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._room.discard(self)


class House:
    """A socket, and a door to it for each worker, all in one event loop."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.rooms: list[set[Guest]] = [set() for _ in range(workers)]
        self.doors = [self._door(folder, index) for index in range(workers)]
        self._listener.close()

    def _door(self, folder: Path, index: int) -> LeastConnectionsListener:
        room = self.rooms[index]
        connection_counts = SharedConnectionCounts(folder / "connections", index, len(self.rooms))
        return LeastConnectionsListener(
            self._listener.dup(), lambda: Guest(room), lambda: len(room), connection_counts, 100
        )

    def close(self) -> None:
        for door in self.doors:
            door.close()


async def come(house: House, count: int) -> list[asyncio.StreamWriter]:
    """All at once."""
    there = sum(map(len, house.rooms))
    pairs = await asyncio.gather(*(asyncio.open_connection(*house.address) for _ in range(count)))
    async with asyncio.timeout(10):
        while sum(map(len, house.rooms)) < there + count:
            await asyncio.sleep(0.001)
    return [writer for _, writer in pairs]


async def leave(guests: list[asyncio.StreamWriter]) -> None:
    for guest in guests:
        guest.close()
        with contextlib.suppress(OSError):
            await guest.wait_closed()


def test_connections_that_come_at_once_are_shared_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, 3)
        guests = await come(house, 30)
        sizes = [len(room) for room in house.rooms]
        assert max(sizes) - min(sizes) <= 2
        house.close()
        await leave(guests)

    asyncio.run(scenario())


def test_a_worker_that_does_not_come_to_the_door_keeps_nobody_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, 2)
        # As a worker that was killed: it is the one with the fewest for ever.
        house.doors[1].close()
        guests = await come(house, 20)
        assert [len(room) for room in house.rooms] == [20, 0]
        house.close()
        await leave(guests)

    asyncio.run(scenario())


def test_behind_the_last_door_that_closes_connections_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, 2)
        house.close()
        house.close()
        with contextlib.suppress(ConnectionRefusedError):
            await asyncio.open_connection(*house.address)
            raise AssertionError("it was accepted")

    asyncio.run(scenario())
