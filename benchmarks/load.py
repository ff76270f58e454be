"""Closed-loop load generator: each connection sends its next request after the response to the last one.

Usage: `python -m benchmarks.load HOST PORT PATH FILE CONCURRENCY SECONDS`.

It implements only the necessary part of HTTP/1.1, on uvloop, because it shares the cores with the measured server.
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


def build_request(file: Path, host: str, path: str) -> bytes:
    """The bytes of a POST request with the contents of `file`, whose suffix decides the content type.

    A file NAME.N.v2 is a binary request of the Open Inference Protocol with a JSON object of N bytes.
    """
    body, kind = file.read_bytes(), f"Content-Type: {mimetypes.guess_type(file.name)[0]}"
    if file.suffix == ".v2":
        kind = f"Inference-Header-Content-Length: {file.suffixes[-2][1:]}"
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def complete_response_head(received: bytearray) -> bytes | None:
    """The head of the response in lower case, or None while the response is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    _, header, length = head.partition(b"content-length:")
    # Without a length the body is chunked, and the last chunk is empty.
    if header:
        complete = len(received) >= end + 4 + int(length.split(b"\r\n", 1)[0])
    else:
        complete = received.endswith(b"0\r\n\r\n")
    return head if complete else None


def status_code(head: bytes) -> int:
    """The status code in the head of a response."""
    return int(head.split(b" ", 2)[1])


class Connection(asyncio.Protocol):
    """A keep-alive connection that sends the same request until the time `end`."""

    def __init__(self, request: bytes, end: float, closed: asyncio.Future[None]) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.closed = closed
        self._request = request
        self._end = end
        self._buffer = bytearray()
        self._sent = 0.0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not isinstance: the transports of uvloop are not subclasses of those of asyncio.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = complete_response_head(self._buffer)
        if head is None:
            return
        self.latencies.append(time.perf_counter() - self._sent)
        self.errors += status_code(head) != 200
        self._buffer.clear()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.errors += exc is not None or time.perf_counter() < self._end
            self.closed.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        if self._sent >= self._end:
            self._transport.close()
        else:
            self._transport.write(self._request)


async def run_closed_loop(
    host: str, port: int, path: str, file: Path, concurrency: int, seconds: float
) -> dict[str, float]:
    """Send the same request on `concurrency` connections for `seconds`.

    Returns:
        Throughput, latency percentiles, the number of errors (statuses other than 200 and broken connections), and the
        processor time of this process per response.
    """
    request = build_request(file, host, path)
    loop = asyncio.get_running_loop()
    cpu_start = time.process_time()
    start = time.perf_counter()
    end = start + seconds
    connections = [Connection(request, end, loop.create_future()) for _ in range(concurrency)]
    await asyncio.gather(*(_run_connection(connection, host, port) for connection in connections))
    elapsed = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu_start
    latencies = np.concatenate([np.asarray(connection.latencies) for connection in connections])
    return {
        "requests_per_second": len(latencies) / elapsed,
        "cpu_seconds_per_request": cpu_seconds / max(1, len(latencies)),
        "p50_seconds": float(np.quantile(latencies, 0.5)) if len(latencies) else math.inf,
        "p99_seconds": float(np.quantile(latencies, 0.99)) if len(latencies) else math.inf,
        "errors": sum(connection.errors for connection in connections),
    }


async def _run_connection(connection: Connection, host: str, port: int) -> None:
    """Connect, and wait until the connection is closed."""
    await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
    await connection.closed


if __name__ == "__main__":
    _, host, port, path, file, concurrency, seconds = sys.argv
    print(json.dumps(uvloop.run(run_closed_loop(host, int(port), path, Path(file), int(concurrency), float(seconds)))))
