"""Open-loop load generator: requests are sent at a fixed rate, independent of the responses.

Usage: `python -m benchmarks.open_loop HOST PORT PATH FILE RATE SECONDS`.

It behaves like many independent clients: a slow response delays no later request, so an overloaded server stays
overloaded. Each request uses an idle connection, or opens one.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

from benchmarks.load import build_request, complete_response_head, status_code

_TICK_SECONDS = 0.001
_DRAIN_SECONDS = 30.0
_PERCENTILES = {"p50_seconds": 0.5, "p99_seconds": 0.99}


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response.

    Attributes:
        status: The status code.
        seconds: The time since the request was due, so that a delay of the generator counts against the server.
        completed: The time of completion.
        retry_after: Whether it had the header `Retry-After`.
    """

    status: int
    seconds: float
    completed: float
    retry_after: bool


class Client(asyncio.Protocol):
    """A keep-alive connection with at most one pending request."""

    def __init__(self, generator: "OpenLoop") -> None:
        self._generator = generator
        self._buffer = bytearray()
        self._due: float | None = None
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not isinstance: the transports of uvloop are not subclasses of those of asyncio.
        self._transport = cast(asyncio.WriteTransport, transport)

    def send(self, request: bytes, due: float) -> None:
        """Send `request`, which was due at the time `due`."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = complete_response_head(self._buffer)
        if head is None or self._due is None:
            return
        now = time.perf_counter()
        response = Response(status_code(head), now - self._due, now, b"\r\nretry-after:" in head)
        self._buffer.clear()
        self._due = None
        self._generator.on_response(self, response, reusable=b"\r\nconnection: close" not in head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - required by asyncio
        self._generator.on_connection_lost(self, pending=self._due is not None)


class OpenLoop:
    """One measurement, from the first due time to the last response.

    Attributes:
        responses: All responses so far.
        send_delays: Seconds from the due time to the sending of each request.
        unanswered: The number of requests without a response.
    """

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.responses: list[Response] = []
        self.send_delays: list[float] = []
        self.unanswered = 0
        self._host = host
        self._port = port
        self._request = request
        self._idle: list[Client] = []
        self._pending = 0
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> float:
        """Send `rate` requests per second for `seconds`, and wait for pending ones.

        Returns:
            The due time of the first request.
        """
        start = time.perf_counter()
        total, sent = round(rate * seconds), 0
        while sent < total:
            now = time.perf_counter()
            due = min(total, 1 + int((now - start) * rate))
            for index in range(sent, due):
                self._send(start + index / rate, now)
            sent = due
            await asyncio.sleep(_TICK_SECONDS)
        end = time.perf_counter() + _DRAIN_SECONDS
        while self._pending and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        self.unanswered += self._pending
        return start

    def on_response(self, client: Client, response: Response, *, reusable: bool) -> None:
        """Record a response, and keep its connection if it is `reusable`."""
        self.responses.append(response)
        self._pending -= 1
        if reusable:
            self._idle.append(client)

    def on_connection_lost(self, client: Client, *, pending: bool) -> None:
        """Forget a closed connection, and count its `pending` request."""
        if pending:
            self._count_unanswered()
        elif client in self._idle:
            self._idle.remove(client)

    def _send(self, due: float, now: float) -> None:
        self.send_delays.append(now - due)
        self._pending += 1
        if self._idle:
            self._idle.pop().send(self._request, due)
            return
        task = asyncio.ensure_future(self._connect_and_send(due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_and_send(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(lambda: Client(self), self._host, self._port)
        except OSError:
            self._count_unanswered()
        else:
            client.send(self._request, due)

    def _count_unanswered(self) -> None:
        self.unanswered += 1
        self._pending -= 1


async def run_open_loop(host: str, port: int, path: str, file: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Send `rate` requests per second for `seconds`.

    Returns:
        The number of requests `sent` and `unanswered`; the `goodput_per_second`, which counts successes while requests
        are sent; the delay of the generator; its processor time per request; and the figures of the responses by
        status code.
    """
    # Every pending request needs a connection.
    _, max_open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open_files, max_open_files))
    generator = OpenLoop(host, port, build_request(file, host, path))
    cpu_start = time.process_time()
    start = await generator.run(rate, seconds)
    cpu_seconds = time.process_time() - cpu_start
    counts = Counter(response.status for response in generator.responses)
    successes = sum(
        response.status == 200 and response.completed <= start + seconds for response in generator.responses
    )
    return {
        "sent": len(generator.send_delays),
        "goodput_per_second": successes / seconds,
        "send_delay_p99_seconds": float(np.quantile(generator.send_delays, 0.99)),
        "unanswered": generator.unanswered,
        "cpu_seconds_per_request": cpu_seconds / max(1, len(generator.send_delays)),
        "responses": {str(status): _figures(status, generator.responses) for status in sorted(counts)},
    }


def _figures(status: int, responses: list[Response]) -> dict[str, float]:
    selected = [response for response in responses if response.status == status]
    seconds = np.asarray([response.seconds for response in selected])
    return {
        "count": len(selected),
        "with_retry_after": sum(response.retry_after for response in selected),
        **{name: float(np.quantile(seconds, q)) for name, q in _PERCENTILES.items()},
    }


if __name__ == "__main__":
    _, host, port, path, file, rate, seconds = sys.argv
    print(json.dumps(uvloop.run(run_open_loop(host, int(port), path, Path(file), float(rate), float(seconds)))))
