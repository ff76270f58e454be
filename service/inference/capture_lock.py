"""Calls on the GPU may run side by side; the recording of a CUDA graph runs alone.

While a thread records a graph, CUDA forbids allocations and synchronous copies to all threads of the process: they
would fail, and void the recording.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CaptureLock:
    """A lock that many calls or one recording hold at a time. A waiting recording goes before later calls."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls = 0
        self._recordings = 0
        self._recording = False

    @property
    def waiting(self) -> bool:
        """Whether a recording holds the lock or waits for it."""
        return self._recordings > 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold the lock together with other calls."""
        with self._condition:
            self._condition.wait_for(lambda: not self._recordings)
            self._calls += 1
        try:
            yield
        finally:
            with self._condition:
                self._calls -= 1
                self._condition.notify_all()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._condition:
            self._recordings += 1
            self._condition.wait_for(lambda: not self._calls and not self._recording)
            self._recording = True
        try:
            yield
        finally:
            with self._condition:
                self._recording = False
                self._recordings -= 1
                self._condition.notify_all()


CAPTURE_LOCK = CaptureLock()
"""The lock of this process."""
