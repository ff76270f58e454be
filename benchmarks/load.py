"""The load generator, `python -m benchmarks.load HOST PORT PATH FILE CONCURRENCY SECONDS`.

Closed loop: each connection sends its next request when it has its answer. It speaks just enough HTTP/1.1 for that, on
uvloop, because it shares the cores with what it measures and every microsecond it takes would be missing there.
"""

import asyncio
import json
import math
import mimetypes
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import uvloop


def request_of(file: Path, host: str, path: str) -> bytes:
    """The request that posts `file`, its content type by its name."""
    body, kind = file.read_bytes(), mimetypes.guess_type(file.name)[0]
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def whole_answer(received: bytearray) -> bytes | None:
    """The head of an answer in lower case, once all of the answer is there."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    _, found, length = head.partition(b"content-length:")
    # Without a length the body comes in chunks, of which the last one is empty.
    whole = len(received) >= end + 4 + int(length.split(b"\r\n", 1)[0]) if found else received.endswith(b"0\r\n\r\n")
    return head if whole else None


def status(head: bytes) -> int:
    """The answer's status code."""
    return int(head.split(b" ", 2)[1])


class Connection(asyncio.Protocol):
    """One keep-alive connection in a closed loop."""

    def __init__(self, request: bytes, until: float, finished: asyncio.Future[None]) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self._request = request
        self._until = until
        self.finished = finished
        self._buffer = bytearray()
        self._sent = 0.0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's: no isinstance here.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = whole_answer(self._buffer)
        if head is None:
            return
        self.latencies.append(time.perf_counter() - self._sent)
        self.errors += status(head) != 200
        self._buffer.clear()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.errors += exc is not None or time.perf_counter() < self._until
            self.finished.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        if self._sent >= self._until:
            self._transport.close()
        else:
            self._transport.write(self._request)


async def generate(host: str, port: int, path: str, file: Path, concurrency: int, seconds: float) -> dict[str, float]:
    """Throughput, latency percentiles and errors of a closed loop of `concurrency` connections, and what it costs here.

    `cpu_seconds` is of an answer, this process's own.
    """
    request = request_of(file, host, path)
    loop = asyncio.get_running_loop()
    used = time.process_time()
    start = time.perf_counter()
    until = start + seconds
    connections = [Connection(request, until, loop.create_future()) for _ in range(concurrency)]
    await asyncio.gather(*(_drive(each, host, port) for each in connections))
    elapsed = time.perf_counter() - start
    used = time.process_time() - used
    taken = np.concatenate([np.asarray(each.latencies) for each in connections])
    return {
        "requests_per_second": len(taken) / elapsed,
        "cpu_seconds": used / max(1, len(taken)),
        "p50": float(np.quantile(taken, 0.5)) if len(taken) else math.inf,
        "p99": float(np.quantile(taken, 0.99)) if len(taken) else math.inf,
        "errors": sum(each.errors for each in connections),
    }


async def _drive(connection: Connection, host: str, port: int) -> None:
    """Connect and stay until the connection has closed."""
    await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
    await connection.finished


if __name__ == "__main__":
    _, host, port, path, file, concurrency, seconds = sys.argv
    print(json.dumps(uvloop.run(generate(host, int(port), path, Path(file), int(concurrency), float(seconds)))))
