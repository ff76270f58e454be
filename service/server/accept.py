"""A socket that several workers accept from, each new connection by the one that has the fewest."""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import structlog

# Whoever has more connections than another leaves a new one to that one for so long; then the other must be busy.
_YIELD_SECONDS = 0.002
# Without a file handle left there is nothing to do but to wait until connections close.
_RECOVERY_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class SharedConnectionCounts:
    """How many connections each of `count` workers has, in a file that they all map into their memory."""

    def __init__(self, file: Path, index: int, count: int) -> None:
        """This is worker number `index`."""
        self._index = index
        self._counts = struct.Struct(f"{count}i")
        with file.open("a+b") as shared:
            shared.truncate(self._counts.size)
            self._memory = mmap.mmap(shared.fileno(), self._counts.size)

    def is_least(self, own: int) -> bool:
        """Whether nobody has fewer than this worker, which has `own`; the others learn of them."""
        struct.pack_into("i", self._memory, 4 * self._index, own)
        fewest: int = min(self._counts.unpack_from(self._memory))
        return own <= fewest


class LeastConnectionsListener:
    """Accepts one connection at a time from `listener`, which is closed with it.

    An event loop's own server takes all that wait at once: a handful of connections that come together, and stay, would
    all be one worker's, the others idle.
    """

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], asyncio.Protocol],
        connections: Callable[[], int],
        connection_counts: SharedConnectionCounts,
        backlog: int,
    ) -> None:
        """`connection` makes the protocol of a new one; `connections` counts those there are."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._connection = connection
        self._connections = connections
        self._connection_counts = connection_counts
        self._entering: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(backlog)
        self._wait()

    @property
    def sockets(self) -> tuple[socket.socket]:
        """As an `asyncio.Server` has them."""
        return (self._listener,)

    def close(self) -> None:
        """Accept nobody any more."""
        if self._listener.fileno() < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """As an `asyncio.Server` has it; here nothing is left to wait for."""

    def _wait(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._on_readable)

    def _on_readable(self) -> None:
        if self._connection_counts.is_least(self._connections() + len(self._entering)):
            self._accept()
        else:
            self._pause(_YIELD_SECONDS, self._accept_anyway)

    def _accept_anyway(self) -> None:
        self._wait()
        self._accept()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # Another worker was faster, or the client left.
            return
        except OSError as error:
            log.error("connections cannot be accepted for a while", reason=str(error))
            self._pause(_RECOVERY_SECONDS, self._wait)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, client))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, then)
