"""Fifty thousand hostile requests to a real process: each is answered without a fault, and no resources leak."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httptools
import orjson
import pytest
import uvloop

from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.support.waiting import until
from tests.system.fuzz.requests import FuzzedRequest, Requests
from tests.system.fuzz.wire import Connection, Response
from tests.system.support.service_process import TIMEOUT_SECONDS, Start

SEED = int(os.environ.get("FUZZ_SEED", "20260101"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "50000"))
PROBLEM_FIELDS = {"type", "title", "status", "detail", "request_id"}
_WARM_UP_REQUESTS = REQUESTS // 5
_CONNECTIONS = 32
# A request without an end gets no response, which is correct: the client waits only briefly.
_UNFRAMED_TIMEOUT_SECONDS = 0.1


@dataclass
class Campaign:
    """Requests to one service, and how many of each kind had which status."""

    port: int
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    async def run(self, requests: Iterable[FuzzedRequest]) -> None:
        """Send every request, over a few connections at a time."""
        queue = iter(requests)
        await asyncio.gather(*(self._send(queue) for _ in range(_CONNECTIONS)))

    async def _send(self, queue: Iterator[FuzzedRequest]) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection()
        for request in queue:
            if not connection.is_open:
                await loop.create_connection(lambda: connection, "127.0.0.1", self.port)
            origin = f"seed {SEED}, {request.kind}"
            try:
                timeout = TIMEOUT_SECONDS if request.framed else _UNFRAMED_TIMEOUT_SECONDS
                response = await connection.request(request.data, timeout, request.requests)
            except TimeoutError:
                assert not request.framed, f"no response: {origin}\n{request.data!r}"
                response = Response()
            except (ConnectionError, httptools.HttpParserError) as error:
                raise AssertionError(f"{error!r}: {origin}\n{request.data!r}") from error
            # The rest of a refused request can be taken for a further one, after which the server disconnects.
            if not request.framed or response.status >= 400:
                connection.close()
            fault = _fault(request, response)
            assert fault is None, f"{fault}: {origin}\n{request.data!r}\n{response}"
            self.kinds[request.kind] += 1
            self.statuses[response.status] += 1
        connection.close()


def _fault(request: FuzzedRequest, response: Response) -> str | None:
    """The fault in a response, if there is one."""
    if not response.status:
        return "closed without a response" if request.framed else None
    if response.status >= 500 and response.status not in (503, 504):
        return "an internal error"
    if response.status >= 400:
        if response.headers.get("content-type") == "application/problem+json":
            problem = orjson.loads(response.body)
            valid = problem.keys() >= PROBLEM_FIELDS and problem["status"] == response.status
        else:
            # The Open Inference Protocol has its own form of errors.
            valid = b" /v2" in request.data[:20] and bool(orjson.loads(response.body)["error"])
        return None if valid else "an error of another form"
    if response.headers.get("content-type") == "application/json":
        content = orjson.loads(response.body)
        if b"/score" in request.data[:100] and not content["results"]:
            return "no result"
    return None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    make_tiny_text_bundle(root)
    make_tiny_text_bundle(root, name="words", task="language-model")
    return root


@pytest.mark.timeout(900)
def test_hostile_requests_are_answered_and_leave_nothing_behind(models: Path, start: Start) -> None:
    service = start(models, "--max-pixels", "1000000", "--max-body-bytes", "1000000", "--log-level", "error")
    open_files = service.open_files
    campaign = Campaign(service.port)
    source = Requests(SEED)
    uvloop.run(campaign.run(source.bombs))
    uvloop.run(campaign.run(source.requests(range(_WARM_UP_REQUESTS))))
    warm = service.resident_bytes
    uvloop.run(campaign.run(source.requests(range(_WARM_UP_REQUESTS, REQUESTS))))
    growth = service.resident_bytes - warm
    print(f"seed {SEED}: {dict(campaign.statuses)}, {warm / 2**20:.0f} MiB when warm, {growth / 2**20:+.1f} MiB since")
    assert campaign.kinds.total() == REQUESTS + len(source.bombs)
    # Measured: 4 to 5 MiB, from the allocator. Keeping every body would take 28 MiB.
    assert growth < 16 * 2**20
    until(lambda: service.open_files <= open_files)
    assert service.client.get("/readyz").status_code == 200
    assert service.end() == 0
    assert "Traceback" not in "".join(service.log)
