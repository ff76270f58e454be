"""The turnstile: who is like one that was turned away is answered the same, sooner, until there is room again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, Serve
from tests.service.support.engine_gate import EngineGate, post_in_background
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.waiting import until

KEY = "ood_a-key-for-tests"
ROUTE = "/v1/models/{model}/score"


@contextmanager
def full(live: Live, **request: Any) -> Iterator[list[int]]:
    """`tiny` is busy and its queue of one is full; the statuses that the turnstile has answered with."""
    refusals: list[int] = []
    load_shedder = live.app.state.load_shedder
    ask = load_shedder.early_rejection

    def heard(scope: Any) -> Any:
        answer = ask(scope)
        if answer is not None:
            refusals.append(answer.status_code)
        return answer

    load_shedder.early_rejection = heard
    gate = EngineGate(live)
    admitted = [post_in_background(live, **request)]
    gate.until_batches(1)
    admitted.append(post_in_background(live, **request))
    until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
    try:
        yield refusals
    finally:
        gate.open()
        for thread, answers in admitted:
            thread.join()
            assert answers[0].status_code == 200


@pytest.fixture
def live(repository: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    # However busy the machine is, the next request comes in time.
    monkeypatch.setattr("service.http.load_shedding._TTL_SECONDS", 30)
    with serve(repository, queue_size=1, max_inputs=1) as live:
        yield live


def posted(path: str = "/v1/models/tiny/score", *, body: bytes = b"", more: str = "") -> bytes:
    body = body or picture()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def statuses(live: Live, requests: bytes, count: int) -> list[int]:
    """Of the answers to `requests`, which are sent in one piece."""
    found: list[int] = []
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(requests)
        received = b""
        while len(found) < count:
            received += connection.recv(1 << 20)
            found = [int(each.split(b" ", 1)[0]) for each in received.split(b"HTTP/1.1 ")[1:]]
    return found


def test_the_second_one_is_answered_as_the_first(live: Live) -> None:
    with full(live) as refusals:
        first = live.score(picture(), headers={"content-type": "image/png", "x-request-id": "one"})
        assert refusals == []
        second = live.score(picture(), headers={"content-type": "image/png", "x-request-id": "two"})
        assert refusals == [503]
    assert (first.status_code, first.reason_phrase) == (second.status_code, second.reason_phrase)
    assert second.headers["x-request-id"] == second.json()["request_id"] == "two"
    assert second.json() == first.json() | {"request_id": "two"}
    # The date aside, and in whatever order.
    assert {**second.headers, "x-request-id": "one", "date": ""} == {**first.headers, "date": ""}
    assert value(live.client, "ood_rejected_total", model="tiny", reason="overloaded") == 2
    assert value(live.client, "ood_http_requests_total", route=ROUTE, method="POST", status="503") == 2


def test_it_is_in_the_log_like_every_answer(live: Live) -> None:
    def ask(name: str) -> dict[str, Any]:
        live.score(picture(), headers={"content-type": "image/png", "x-request-id": name})
        until(lambda: any(line["event"] == "request" and line["request_id"] == name for line in lines))
        return {**lines[-1], "request_id": "", "ms": 0}

    with full(live) as refusals, capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        assert ask("first") == ask("second")
        assert refusals == [503]


def test_the_open_inference_protocol_has_its_own_form(live: Live) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["eA=="]}
    with full(live) as refusals:
        answers = [live.client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}) for _ in range(2)]
        assert refusals == [503]
    assert answers[0].json() == answers[1].json()
    assert answers[1].json()["error"].startswith("overloaded: ")


def test_who_asks_for_something_else_is_looked_at(live: Live) -> None:
    with full(live) as refusals:
        assert live.score(picture()).status_code == 503
        assert live.score(picture(), model="grey").status_code == 200
        assert live.score(picture(), params={"alpha": "x"}).status_code == 422
        assert live.client.get("/v1/models/tiny").status_code == 200
        assert live.client.get("/v1/models/tiny/score").status_code == 405
        assert refusals == []


def test_with_room_again_it_lets_in(live: Live) -> None:
    with full(live) as refusals:
        assert [live.score(picture()).status_code for _ in range(3)] == [503, 503, 503]
    assert live.score(picture()).status_code == 200
    assert refusals == [503, 503]


def test_it_soon_forgets(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.load_shedding._TTL_SECONDS", 0.1)
    with full(live) as refusals:
        live.score(picture())
        load_shedder = live.app.state.load_shedder
        until(lambda: not load_shedder._rejected)
        live.score(picture())
        assert refusals == []


def test_a_wrong_key_is_not_taken_for_a_good_one(
    repository: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.load_shedding._TTL_SECONDS", 30)
    file = tmp_path / "keys"
    file.write_text(f"alice sha256:{digest_of(KEY)}\n")

    def ask(live: Live, key: str) -> httpx.Response:
        return live.score(picture(), headers={"content-type": "image/png", "x-api-key": key})

    with serve(repository, queue_size=1, max_inputs=1, api_keys_file=file) as live:
        good = {"content-type": "image/png", "x-api-key": KEY}
        with full(live, headers=good) as refusals:
            assert [ask(live, KEY).status_code for _ in range(2)] == [503, 503]
            assert ask(live, "another").status_code == 401
            assert live.score(picture()).status_code == 401
            assert refusals == [503]


def test_the_connection_goes_on_behind_a_body_that_nobody_read(live: Live) -> None:
    with full(live) as refusals, socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        live.score(picture())
        request = posted(body=bytes(100_000))
        for _ in range(3):
            connection.sendall(request[:200])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            connection.sendall(request[200:])
        assert refusals == [503] * 3


@pytest.mark.parametrize(
    ("version", "more"),
    [("1.0", ""), ("1.1", "Connection: close\r\n"), ("1.1", "Connection: upgrade\r\nUpgrade: x\r\n")],
)
def test_a_connection_that_was_to_be_closed_is(live: Live, version: str, more: str) -> None:
    request = posted(more=more).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with full(live) as refusals, socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        live.score(picture())
        connection.sendall(request)
        received = b""
        while data := connection.recv(65_536):
            received += data
        assert refusals == [503]
    assert b"\r\nconnection: close\r\n" in received


def test_thousands_of_requests_in_one_piece_are_all_answered(live: Live) -> None:
    with full(live) as refusals:
        live.score(picture())
        assert statuses(live, 2_000 * posted(body=b"x"), 2_000) == [503] * 2_000
        assert refusals


def test_what_is_behind_another_request_waits_its_turn(live: Live) -> None:
    with full(live):
        live.score(picture())
        pieces = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + 500 * posted(body=b"x")
        assert statuses(live, pieces, 501) == [200, *[503] * 500]
