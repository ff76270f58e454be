"""An open loop of load, `python -m benchmarks.open_loop HOST PORT PATH FILE RATE SECONDS`.

Requests are sent at a fixed rate whatever becomes of them, as many independent clients would: a slow answer delays no
later request, so that an overloaded server stays overloaded. Each takes an idle connection, or opens one.
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

from benchmarks.load import request_of, status, whole_answer

_TICK_SECONDS = 0.001
_PATIENCE_SECONDS = 30.0
_PERCENTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Answer:
    """`seconds` from the time that the request was due, so that a generator that lags counts against the server."""

    status: int
    seconds: float
    done: float
    retry_after: bool


class Client(asyncio.Protocol):
    """One keep-alive connection, with at most one request under way."""

    def __init__(self, generator: "OpenLoop") -> None:
        self._generator = generator
        self._buffer = bytearray()
        self._due: float | None = None
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's: no isinstance here.
        self._transport = cast(asyncio.WriteTransport, transport)

    def send(self, request: bytes, due: float) -> None:
        """Send `request`, which was `due` then."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = whole_answer(self._buffer)
        if head is None or self._due is None:
            return
        now = time.perf_counter()
        answer = Answer(status(head), now - self._due, now, b"\r\nretry-after:" in head)
        self._buffer.clear()
        self._due = None
        self._generator.answered(self, answer, reusable=b"\r\nconnection: close" not in head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._generator.lost(self, under_way=self._due is not None)


class OpenLoop:
    """The requests of one measurement, from the first due time to the last answer."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.answers: list[Answer] = []
        self.lags: list[float] = []
        self.broken = 0
        self._host = host
        self._port = port
        self._request = request
        self._idle: list[Client] = []
        self._under_way = 0
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> float:
        """Send for `seconds`, wait for what is under way, and return when the first request was due."""
        start = time.perf_counter()
        total, sent = round(rate * seconds), 0
        while sent < total:
            now = time.perf_counter()
            due = min(total, 1 + int((now - start) * rate))
            for index in range(sent, due):
                self._send(start + index / rate, now)
            sent = due
            await asyncio.sleep(_TICK_SECONDS)
        until = time.perf_counter() + _PATIENCE_SECONDS
        while self._under_way and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        self.broken += self._under_way
        return start

    def answered(self, client: Client, answer: Answer, *, reusable: bool) -> None:
        """An answer has come; its connection is free for the next request."""
        self.answers.append(answer)
        self._under_way -= 1
        if reusable:
            self._idle.append(client)

    def lost(self, client: Client, *, under_way: bool) -> None:
        """A connection is gone, with a request or without one."""
        if under_way:
            self._failed()
        elif client in self._idle:
            self._idle.remove(client)

    def _send(self, due: float, now: float) -> None:
        self.lags.append(now - due)
        self._under_way += 1
        if self._idle:
            self._idle.pop().send(self._request, due)
            return
        task = asyncio.ensure_future(self._open(due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(lambda: Client(self), self._host, self._port)
        except OSError:
            self._failed()
        else:
            client.send(self._request, due)

    def _failed(self) -> None:
        self.broken += 1
        self._under_way -= 1


async def generate(host: str, port: int, path: str, file: Path, rate: float, seconds: float) -> dict[str, Any]:
    """What came of `rate` requests a second: for each status how many, how fast, and how many had `Retry-After`.

    `goodput` is successes a second among the answers that came while requests were sent; `broken` requests had none.
    `cpu_seconds` is of a request, this process's own.
    """
    # Every request under way holds a connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    generator = OpenLoop(host, port, request_of(file, host, path))
    used = time.process_time()
    start = await generator.run(rate, seconds)
    used = time.process_time() - used
    counts = Counter(each.status for each in generator.answers)
    in_time = sum(each.status == 200 and each.done <= start + seconds for each in generator.answers)
    return {
        "sent": len(generator.lags),
        "goodput": in_time / seconds,
        "lag_p99": float(np.quantile(generator.lags, 0.99)),
        "broken": generator.broken,
        "cpu_seconds": used / max(1, len(generator.lags)),
        "answers": {str(code): _of(code, generator.answers) for code in sorted(counts)},
    }


def _of(code: int, answers: list[Answer]) -> dict[str, float]:
    mine = [each for each in answers if each.status == code]
    seconds = np.asarray([each.seconds for each in mine])
    return {
        "count": len(mine),
        "with_retry_after": sum(each.retry_after for each in mine),
        **{name: float(np.quantile(seconds, q)) for name, q in _PERCENTILES.items()},
    }


if __name__ == "__main__":
    _, host, port, path, file, rate, seconds = sys.argv
    print(json.dumps(uvloop.run(generate(host, int(port), path, Path(file), float(rate), float(seconds)))))
