"""Early load shedding: repeats of a rejected request get the same response earlier, until there is room again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
from starlette.responses import Response
from starlette.types import Scope
from structlog.testing import capture_logs

from service.auth.api_keys import digest_of
from service.errors import Overloaded
from service.http.load_shedding import LoadShedder
from service.http.route import Route
from service.inference.outcomes import QueueFull
from service.lifecycle import Lifecycle
from service.repository.served import Repository
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.engine_gate import EngineGate, post_in_background
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.service.support.virtual_clock import VirtualClockLoop, run_with_virtual_clock
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until

KEY = "ood_a-key-for-tests"
ROUTE = "/v1/models/{model}/score"


class RecordingLoadShedder(LoadShedder):
    """Records the statuses of early rejections, and remembers rejections for longer than any test takes."""

    def __init__(self, repository: Repository, access_log: AccessLog, lifecycle: Lifecycle, **options: Any) -> None:
        super().__init__(repository, access_log, lifecycle, ttl_seconds=600, **options)
        self.statuses: list[int] = []

    def early_rejection(self, scope: Scope) -> Response | None:
        response = super().early_rejection(scope)
        if response is not None:
            self.statuses.append(response.status_code)
        return response


@pytest.fixture
def live(repository: Path, serve: Serve, recording: None) -> Iterator[Live]:
    # Requests that wait in the queue must not expire on a busy machine.
    with serve(repository, queue_size=1, max_inputs=1, timeout_ms=600_000) as live:
        yield live


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services made during the test record their early rejections."""
    monkeypatch.setattr("service.app.LoadShedder", RecordingLoadShedder)


@contextmanager
def full(live: Live, **request: Any) -> Iterator[list[int]]:
    """While `tiny` is busy and its queue of one is full; yields the statuses of early rejections."""
    gate = EngineGate(live)
    admitted = [post_in_background(live, **request)]
    gate.until_batches(1)
    admitted.append(post_in_background(live, **request))
    until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
    try:
        yield live.app.state.load_shedder.statuses
    finally:
        gate.open()
        for thread, answers in admitted:
            thread.join()
            assert answers[0].status_code == 200


def posted(path: str = "/v1/models/tiny/score", *, body: bytes = b"", more: str = "") -> bytes:
    body = body or picture()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def statuses(live: Live, requests: bytes, count: int) -> list[int]:
    """Send `requests` in one piece and return the statuses of the `count` responses."""
    received_statuses: list[int] = []
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(requests)
        received = b""
        while len(received_statuses) < count:
            received += connection.recv(1 << 20)
            received_statuses = [int(part.split(b" ", 1)[0]) for part in received.split(b"HTTP/1.1 ")[1:]]
    return received_statuses


def test_a_repeat_gets_the_same_response_earlier(live: Live) -> None:
    with full(live) as early:
        first = live.score(picture(), headers={"content-type": "image/png", "x-request-id": "one"})
        assert early == []
        second = live.score(picture(), headers={"content-type": "image/png", "x-request-id": "two"})
        assert early == [503]
    assert (first.status_code, first.reason_phrase) == (second.status_code, second.reason_phrase)
    assert second.headers["x-request-id"] == second.json()["request_id"] == "two"
    assert second.json() == first.json() | {"request_id": "two"}
    # Equal except for the date.
    assert {**second.headers, "x-request-id": "one", "date": ""} == {**first.headers, "date": ""}
    assert value(live.client, "ood_rejected_total", model="tiny", reason="overloaded") == 2
    assert value(live.client, "ood_http_requests_total", route=ROUTE, method="POST", status="503") == 2


def test_an_early_rejection_is_logged_like_a_normal_one(live: Live) -> None:
    def ask(name: str) -> dict[str, Any]:
        live.score(picture(), headers={"content-type": "image/png", "x-request-id": name})
        until(lambda: any(line["event"] == "request" and line["request_id"] == name for line in lines))
        return {**lines[-1], "request_id": "", "ms": 0}

    with full(live) as early, capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        assert ask("first") == ask("second")
        assert early == [503]


def test_an_early_rejection_of_the_open_inference_protocol_has_its_error_form(live: Live) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["eA=="]}
    with full(live) as early:
        answers = [live.client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}) for _ in range(2)]
        assert early == [503]
    assert answers[0].json() == answers[1].json()
    assert answers[1].json()["error"].startswith("overloaded: ")


def test_a_different_request_is_processed_normally(live: Live) -> None:
    with full(live) as early:
        assert live.score(picture()).status_code == 503
        assert live.score(picture(), model="grey").status_code == 200
        assert live.score(picture(), params={"alpha": "x"}).status_code == 422
        assert live.client.get("/v1/models/tiny").status_code == 200
        assert live.client.get("/v1/models/tiny/score").status_code == 405
        assert early == []


def test_a_repeat_is_accepted_once_there_is_room(live: Live) -> None:
    with full(live) as early:
        assert [live.score(picture()).status_code for _ in range(3)] == [503, 503, 503]
    assert live.score(picture()).status_code == 200
    assert early == [503, 503]


def test_a_rejection_is_remembered_for_a_second(tmp_path: Path) -> None:
    class FullBatcher:
        def check_capacity(self, **_: float) -> None:
            raise QueueFull("its queue is full", 1)

    async def scenario(loop: VirtualClockLoop) -> None:
        lifecycle = Lifecycle()
        lifecycle.ready()
        metrics = SimpleNamespace(rejected=lambda _: None)
        model: Any = SimpleNamespace(name="tiny", version="1", batcher=FullBatcher(), metrics=metrics)
        repository = Repository(tmp_path)
        repository.serve([model], {})
        load_shedder = LoadShedder(repository, AccessLog(Metrics(), enabled=False), lifecycle)
        route = Route("/", lambda: None)
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "route": route}
        with pytest.raises(Overloaded):
            load_shedder.check(scope, model, None, timeout_ms=1000)
        await loop.advance(0.99)
        assert load_shedder.early_rejection(scope).status_code == 503
        await loop.advance(0.01)
        assert load_shedder.early_rejection(scope) is None

    run_with_virtual_clock(scenario)


def test_a_request_with_another_key_is_no_repeat(
    repository: Path, serve: Serve, tmp_path: Path, recording: None
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice sha256:{digest_of(KEY)}\n")

    def ask(live: Live, key: str) -> httpx.Response:
        return live.score(picture(), headers={"content-type": "image/png", "x-api-key": key})

    with serve(repository, queue_size=1, max_inputs=1, api_keys_file=file) as live:
        good = {"content-type": "image/png", "x-api-key": KEY}
        with full(live, headers=good) as early:
            assert [ask(live, KEY).status_code for _ in range(2)] == [503, 503]
            assert ask(live, "another").status_code == 401
            assert live.score(picture()).status_code == 401
            assert early == [503]


def test_a_connection_stays_usable_after_the_unread_body_of_an_early_rejection(live: Live) -> None:
    with full(live) as early, socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        live.score(picture())
        request = posted(body=bytes(100_000))
        for _ in range(3):
            connection.sendall(request[:200])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            connection.sendall(request[200:])
        assert early == [503] * 3


@pytest.mark.parametrize(
    ("version", "more"),
    [("1.0", ""), ("1.1", "Connection: close\r\n"), ("1.1", "Connection: upgrade\r\nUpgrade: x\r\n")],
)
def test_an_early_rejection_closes_a_connection_that_is_not_kept_alive(live: Live, version: str, more: str) -> None:
    request = posted(more=more).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with full(live) as early, socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        live.score(picture())
        connection.sendall(request)
        received = b""
        while data := connection.recv(65_536):
            received += data
        assert early == [503]
    assert b"\r\nconnection: close\r\n" in received


def test_thousands_of_pipelined_repeats_are_all_answered(live: Live) -> None:
    with full(live) as early:
        live.score(picture())
        assert statuses(live, 2_000 * posted(body=b"x"), 2_000) == [503] * 2_000
        assert early


def test_pipelined_requests_are_answered_in_order(live: Live) -> None:
    with full(live):
        live.score(picture())
        pieces = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + 500 * posted(body=b"x")
        assert statuses(live, pieces, 501) == [200, *[503] * 500]


def test_a_full_queue_of_the_canary_rejects_only_the_requests_that_go_to_the_canary(
    tmp_path: Path, serve: Serve, recording: None
) -> None:
    for version in ("1", "2"):
        make_tiny_bundle(tmp_path, version=version)
    (tmp_path / "traffic.yaml").write_text("tiny: {serve: 1, canary: {version: 2, percent: 50}}")
    with serve(tmp_path, queue_size=1, max_inputs=1) as live:

        def ask(number: int) -> httpx.Response:
            return live.score(picture(), headers={"content-type": "image/png", "x-request-id": f"{number}"})

        versions = [ask(number).json()["version"] for number in range(20)]
        assert set(versions) == {"1", "2"}
        with live.app.state.repository.get("tiny", "2").batcher.reserve(1):
            # Twice: the first round remembers the rejections.
            statuses = [[ask(number).status_code for number in range(20)] for _ in range(2)]
    assert statuses == [[503 if version == "2" else 200 for version in versions]] * 2
    assert len(live.app.state.load_shedder.statuses) >= versions.count("2")
