"""Decode budget: bounds the memory of images that are being decoded, and the size of one request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import TooManyInputs


class DecodeBudget:
    """Bounds the pixels of all images that are being decoded at the same time, on any thread.

    The memory of decoding is then at most `bundle.BYTES_PER_PIXEL` times the limit, whatever the number of threads.
    """

    def __init__(self, max_pixels: int) -> None:
        """Bound to `max_pixels`; a larger image would be decoded alone."""
        self._max_pixels = max_pixels
        self._pixels = 0
        self._room = threading.Condition()
        # Held by the thread that waits for room, so that small images do not pass a large one for ever.
        self._turn = threading.Lock()

    @contextmanager
    def decoding(self, pixels: int) -> Iterator[None]:
        """Wait for room for an image of `pixels` pixels, and hold it until the block ends."""
        with self._turn, self._room:
            self._room.wait_for(lambda: not self._pixels or self._pixels + pixels <= self._max_pixels)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._room:
                self._pixels -= pixels
                self._room.notify()


class RequestSize:
    """Counts the pixels and characters of one request. Thread-safe."""

    def __init__(self, max_pixels: int, max_chars: int) -> None:
        """Start at nothing; `max_pixels` and `max_chars` are the limits."""
        self._max_pixels, self._max_chars = max_pixels, max_chars
        self._pixels = self._chars = 0
        self._lock = threading.Lock()

    def add_pixels(self, pixels: int) -> None:
        """Count an image before it is decoded; raises `TooManyInputs` beyond the limit."""
        with self._lock:
            self._pixels += pixels
            total = self._pixels
        if total > self._max_pixels:
            raise TooManyInputs(
                f"The images of the request have more than {self._max_pixels:,} pixels together "
                "(OOD_MAX_REQUEST_PIXELS). Split them into several requests, or send smaller ones."
            )

    def add_chars(self, chars: int) -> None:
        """Count texts before they are encoded; raises `TooManyInputs` beyond the limit."""
        self._chars += chars
        if self._chars > self._max_chars:
            raise TooManyInputs(
                f"The texts of the request have more than {self._max_chars:,} characters together "
                "(OOD_MAX_REQUEST_CHARS). Split them into several requests."
            )
