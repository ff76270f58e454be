"""Accepts connections from a socket that several workers share, preferring the worker with the fewest connections."""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable

import structlog

from service.worker_group import WorkerGroup

# A worker with more connections than another waits this long before it accepts. If the other worker has not accepted
# by then, it is busy.
_YIELD_SECONDS = 0.002
# Without a free file descriptor the worker can only wait until connections close.
_RETRY_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class SharedConnectionCounts:
    """The number of connections of each worker of a group, in memory that the workers share."""

    def __init__(self, worker_group: WorkerGroup) -> None:
        self._index = worker_group.index
        self._counts = struct.Struct(f"{worker_group.count}i")
        with worker_group.shared_file("connections").open("a+b") as file:
            file.truncate(self._counts.size)
            self._memory = mmap.mmap(file.fileno(), self._counts.size)

    def is_least(self, count: int) -> bool:
        """Publish that this worker has `count` connections; return whether no other worker has fewer."""
        struct.pack_into("i", self._memory, 4 * self._index, count)
        least: int = min(self._counts.unpack_from(self._memory))
        return count <= least


class LeastConnectionsListener:
    """Accepts connections from a shared listening socket, one at a time and evenly across the workers.

    The server of an event loop accepts all pending connections at once: of a few that arrive together, one worker
    would get all, and the other workers would be idle. The listener has the part of `asyncio.Server`'s interface that
    uvicorn uses.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol_factory: Callable[[], asyncio.Protocol],
        open_connections: Callable[[], int],
        connection_counts: SharedConnectionCounts,
        backlog: int,
    ) -> None:
        """Start to listen.

        Args:
            listener: A bound socket; `close` closes it.
            protocol_factory: Makes the protocol of a new connection.
            open_connections: Returns the number of connections that this worker has.
            connection_counts: The counts of all workers that accept from the same socket.
            backlog: Connections that the operating system queues.
        """
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._open_connections = open_connections
        self._connection_counts = connection_counts
        self._pending: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(backlog)
        self._watch()

    @property
    def sockets(self) -> tuple[socket.socket]:
        """The listening socket."""
        return (self._listener,)

    def close(self) -> None:
        """Stop listening. Accepted connections stay open."""
        if self._listener.fileno() < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Return at once: `close` leaves nothing to wait for."""

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._on_readable)

    def _on_readable(self) -> None:
        if self._connection_counts.is_least(self._open_connections() + len(self._pending)):
            self._accept()
        else:
            self._pause(_YIELD_SECONDS, self._accept_anyway)

    def _accept_anyway(self) -> None:
        self._watch()
        self._accept()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # Another worker accepted the connection first, or the client closed it.
            return
        except OSError as error:
            log.error("accept failed", reason=str(error), retry_seconds=_RETRY_SECONDS)
            self._pause(_RETRY_SECONDS, self._watch)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol_factory, client))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _pause(self, seconds: float, resume: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, resume)
