"""How slowly a client may send, whether its bytes are read or discarded."""

MIN_BYTES_PER_SECOND = 16_384
"""The pace that a body must keep on average."""

_MAX_DISCARDED_BYTES = 2**30


class DiscardedBytes:
    """Limits the bytes of a client that are received and discarded after its response.

    A connection that is closed while its client still sends is reset, and the reset destroys a response that the
    client has not read. Many clients send all of a body before they read.
    """

    __slots__ = ("_period_bytes", "_total_bytes")

    def __init__(self) -> None:
        self._period_bytes = self._total_bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that were discarded."""
        self._period_bytes += size

    def end_period(self, seconds: float) -> bool:
        """Begin the next period; return whether the client kept the pace in the last `seconds`, and is within 1 GiB."""
        kept_pace = self._period_bytes >= seconds * MIN_BYTES_PER_SECOND
        self._total_bytes += self._period_bytes
        self._period_bytes = 0
        return kept_pace and self._total_bytes <= _MAX_DISCARDED_BYTES
