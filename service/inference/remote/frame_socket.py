"""A Unix socket for frames on an event loop: any thread may write, and writing does not block."""

import asyncio
import socket
import threading
from collections.abc import Callable

_READ_BYTES = 1 << 18


class FrameSocket:
    """A connected stream socket on an event loop.

    Bytes that do not fit into the socket's buffer are sent later, so that no thread waits for the other process.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_data: Callable[[bytearray], object],
        on_closed: Callable[[], object],
    ) -> None:
        """Begin to read; call it on the thread of the event loop.

        Args:
            sock: The socket; it is closed with this object.
            loop: The event loop.
            on_data: Called with all bytes that were received and not removed from the array yet.
            on_closed: Called once, when the other process has closed its end, unless `close` was called before.
        """
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._on_data = on_data
        self._on_closed = on_closed
        self._received = bytearray()
        self._unsent = bytearray()
        self._lock = threading.Lock()
        self._closed = False
        loop.add_reader(sock, self._read)

    def send(self, data: bytes) -> None:
        """Send `data`, after all that was sent before. Any thread may call it; a closed socket drops the data."""
        with self._lock:
            if self._closed:
                return
            if self._unsent:
                self._unsent += data
                return
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The other process has ended; `_read` handles it.
                return
            if sent < len(data):
                self._unsent += data[sent:]
                self._loop.call_soon_threadsafe(self._watch_writable)

    def close(self) -> None:
        """Close the socket; call it on the thread of the event loop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._unsent.clear()
        # The callbacks refer to the owner of this object. The cycle would keep shared memory mapped until the garbage
        # collector runs.
        del self._on_data, self._on_closed

    def _watch_writable(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
            if not self._unsent:
                self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received += data
            self._on_data(self._received)
        else:
            on_closed = self._on_closed
            self.close()
            on_closed()
