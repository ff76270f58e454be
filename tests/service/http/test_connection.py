"""Connections that are silent, slow or not HTTP: each ends within its time, with a problem for who may read it."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.http.connection import MAX_HEADERS_BYTES
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.pictures import picture

PATIENCE = 0.6
KEEP_ALIVE = 0.8
HEAD = b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def impatient(repository: Path, serve: Serve) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.server.server.KEEP_ALIVE_SECONDS", KEEP_ALIVE)
        with serve(repository, receive_timeout_seconds=PATIENCE) as live:
            # Its own connections would be closed beneath it.
            live.client.headers["connection"] = "close"
            yield live


def connect(live: Live) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", live.port))
    connection.settimeout(15)
    return connection


def until_closed(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def trickle(connection: socket.socket, part: bytes = b"x", seconds: float = 15) -> bytes:
    """Send `part` every now and then until the service hangs up; what it said."""
    limit = time.monotonic() + seconds
    connection.settimeout(0.1)
    received = bytearray()
    while time.monotonic() < limit:
        try:
            connection.sendall(part)
            data = connection.recv(65_536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return bytes(received)
        if not data:
            return bytes(received)
        received += data
    raise AssertionError("the service still listens")


def problem_of(answer: bytes, status: int, kind: str) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), answer
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    content: dict[str, Any] = json.loads(body)
    assert (content["type"], content["status"]) == (kind, status)
    assert f"x-request-id: {content['request_id']}" in lines
    return content


def test_a_body_that_stalls_is_408_and_frees_its_connection(impatient: Live) -> None:
    before = value(impatient.client, "ood_rejected_total", model="tiny", reason="request-timeout")
    with connect(impatient) as stalled:
        stalled.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
        began = time.monotonic()
        problem = problem_of(until_closed(stalled), 408, "request-timeout")
        assert PATIENCE * 0.9 <= time.monotonic() - began < 10
        assert "stalled after 4 bytes" in problem["detail"]
    assert value(impatient.client, "ood_rejected_total", model="tiny", reason="request-timeout") == before + 1
    assert impatient.app.state.lifecycle.in_flight == 0


def test_a_body_that_comes_byte_by_byte_is_408_too(impatient: Live) -> None:
    with connect(impatient) as slow:
        slow.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        problem_of(trickle(slow), 408, "request-timeout")


def test_a_slow_body_that_keeps_its_pace_is_scored(impatient: Live) -> None:
    body = picture() + bytes(100_000)
    with connect(impatient) as slow:
        slow.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        began = time.monotonic()
        for start in range(0, len(body), 12_000):
            slow.sendall(body[start : start + 12_000])
            time.sleep(PATIENCE / 6)
        assert time.monotonic() - began > PATIENCE
        assert until_closed(slow).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("slowly", [True, False], ids=["trickled", "stalled"])
def test_a_head_that_does_not_end_is_408(impatient: Live, slowly: bool) -> None:
    with connect(impatient) as loris:
        loris.sendall(HEAD)
        began = time.monotonic()
        problem_of(trickle(loris, b"X: y\r\n") if slowly else until_closed(loris), 408, "request-timeout")
        assert time.monotonic() - began < 10


def test_a_head_without_end_is_431(impatient: Live) -> None:
    with connect(impatient) as endless:
        endless.sendall(HEAD + b"X: ")
        problem_of(trickle(endless, b"y" * (MAX_HEADERS_BYTES // 4)), 431, "headers-too-large")


@pytest.mark.parametrize(
    "said", [b"", b"\r\n", HEAD + b"Content-Length: 0\r\n\r\n"], ids=["nothing", "newline", "request"]
)
def test_an_idle_connection_is_closed_whatever_was_said_before(impatient: Live, said: bytes) -> None:
    with connect(impatient) as idle:
        idle.sendall(said)
        began = time.monotonic()
        until_closed(idle)
        assert KEEP_ALIVE * 0.9 <= time.monotonic() - began < 10


def test_a_body_that_goes_on_behind_its_answer_is_cut(impatient: Live) -> None:
    with connect(impatient) as endless:
        endless.sendall(b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert trickle(endless).startswith(b"HTTP/1.1 404 ")


def test_requests_sent_ahead_of_their_answers_are_all_answered(impatient: Live) -> None:
    # Far more than one head may have, and cut into pieces in the middle of heads.
    count, ask = 1_000, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 700 + b"\r\n\r\n"
    with connect(impatient) as hasty:
        sender = threading.Thread(target=hasty.sendall, args=(ask * count,))
        sender.start()
        assert until_closed(hasty).count(b"HTTP/1.1 200 ") == count
        sender.join()


def test_a_client_that_takes_no_answers_is_cut(impatient: Live) -> None:
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", impatient.port))
    deaf.settimeout(0.2)
    with deaf, pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask_on(deaf, seconds=60)
    assert impatient.client.get("/readyz").status_code == 200


def ask_on(connection: socket.socket, seconds: float) -> None:
    # The service reads no more once answers pile up, so that even asking comes to a halt.
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_not_http_is_a_problem(impatient: Live, sent: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(sent)
        problem_of(until_closed(connection), 400, "malformed-request")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_request_to_upgrade_is_answered_as_it_is(impatient: Live, protocol: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        )
        answer = until_closed(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer


def test_an_answer_comes_in_one_piece(live: Live) -> None:
    with connect(live) as connection:
        for _ in range(50):
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: %d" % len(body) in head


def test_a_large_answer_and_one_that_closes_are_complete(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body)["openapi"]
