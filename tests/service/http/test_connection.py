"""Connections that are silent, slow or not HTTP: each is closed in time, with a problem response if possible."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.http.body import read_body
from service.http.connection import MAX_HEADERS_BYTES, Connection
from service.http.load_shedding import LoadShedder
from service.lifecycle import Lifecycle
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.virtual_clock import VirtualClockLoop, run_with_virtual_clock

TIMEOUT = 0.6
KEEP_ALIVE = 0.8
HEAD = b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def strict(repository: Path, serve: Serve) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.server.server.KEEP_ALIVE_SECONDS", KEEP_ALIVE)
        with serve(repository, receive_timeout_seconds=TIMEOUT) as live:
            # The client must not reuse connections, because the service closes them early.
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
    """Send `part` ten times a second until the service closes the connection; return what it sent."""
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
    raise AssertionError("the service did not close the connection")


def problem_of(response: bytes, status: int, kind: str) -> dict[str, Any]:
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), response
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    content: dict[str, Any] = json.loads(body)
    assert (content["type"], content["status"]) == (kind, status)
    assert f"x-request-id: {content['request_id']}" in lines
    return content


def test_a_body_that_stalls_is_408_and_frees_its_connection(strict: Live) -> None:
    before = value(strict.client, "ood_rejected_total", model="tiny", reason="request-timeout")
    with connect(strict) as stalled:
        stalled.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
        began = time.monotonic()
        problem = problem_of(until_closed(stalled), 408, "request-timeout")
        assert TIMEOUT * 0.9 <= time.monotonic() - began < 10
        assert "stalled after 4 bytes" in problem["detail"]
    assert value(strict.client, "ood_rejected_total", model="tiny", reason="request-timeout") == before + 1
    assert strict.app.state.lifecycle.in_flight == 0


def test_a_body_that_comes_byte_by_byte_is_408_too(strict: Live) -> None:
    with connect(strict) as slow:
        slow.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        problem_of(trickle(slow), 408, "request-timeout")


def test_a_body_that_takes_longer_than_the_timeout_at_the_minimum_pace_is_read() -> None:
    timeout, parts, part = 10.0, 5, bytes(200_000)
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def counting_receive() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        body = await read_body(Request(scope, counting_receive), 1 << 30, timeout)
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    def connection() -> asyncio.Protocol:
        load_shedder = LoadShedder(AccessLog(Metrics(), enabled=False), Lifecycle())
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
        return Connection(
            config=config, server_state=ServerState(), app_state={}, timeout_seconds=timeout, load_shedder=load_shedder
        )

    async def scenario(loop: VirtualClockLoop) -> None:
        service_end, client_end = socket.socketpair()
        await loop.connect_accepted_socket(connection, service_end)
        reader, writer = await asyncio.open_connection(sock=client_end)
        writer.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (parts * len(part)))
        for number in range(1, parts + 1):
            await loop.advance(0.9 * timeout)
            writer.write(part)
            while received < number * len(part):
                await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"\r\n\r\n%d" % (parts * len(part)))
        writer.close()

    run_with_virtual_clock(scenario)


@pytest.mark.parametrize("slowly", [True, False], ids=["trickled", "stalled"])
def test_headers_that_do_not_end_are_408(strict: Live, slowly: bool) -> None:
    with connect(strict) as connection:
        connection.sendall(HEAD)
        began = time.monotonic()
        problem_of(trickle(connection, b"X: y\r\n") if slowly else until_closed(connection), 408, "request-timeout")
        assert time.monotonic() - began < 10


def test_headers_over_the_limit_are_431(strict: Live) -> None:
    with connect(strict) as endless:
        endless.sendall(HEAD + b"X: ")
        problem_of(trickle(endless, b"y" * (MAX_HEADERS_BYTES // 4)), 431, "headers-too-large")


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", HEAD + b"Content-Length: 0\r\n\r\n"], ids=["nothing", "newline", "request"]
)
def test_an_idle_connection_is_closed_whatever_was_sent_before(strict: Live, sent: bytes) -> None:
    with connect(strict) as idle:
        idle.sendall(sent)
        began = time.monotonic()
        until_closed(idle)
        assert KEEP_ALIVE * 0.9 <= time.monotonic() - began < 10


def test_a_body_that_continues_after_its_response_is_cut_off(strict: Live) -> None:
    with connect(strict) as endless:
        endless.sendall(b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert trickle(endless).startswith(b"HTTP/1.1 404 ")


def test_pipelined_requests_are_all_answered(strict: Live) -> None:
    # Together far longer than the limit of one request's headers, and split in the middle of headers.
    count, request = 1_000, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 700 + b"\r\n\r\n"
    with connect(strict) as connection:
        sender = threading.Thread(target=connection.sendall, args=(request * count,))
        sender.start()
        assert until_closed(connection).count(b"HTTP/1.1 200 ") == count
        sender.join()


def test_a_client_that_reads_no_responses_is_disconnected(strict: Live) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", strict.port))
    connection.settimeout(0.2)
    with connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_requests(connection, seconds=60)
    assert strict.client.get("/readyz").status_code == 200


def send_requests(connection: socket.socket, seconds: float) -> None:
    # The service stops reading once responses accumulate, so that sending blocks, too.
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_bytes_that_are_not_http_are_400(strict: Live, sent: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(sent)
        problem_of(until_closed(connection), 400, "malformed-request")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_request_to_upgrade_gets_a_normal_response(strict: Live, protocol: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
        )
        response = until_closed(connection)
        assert response.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in response


def test_the_head_and_body_of_a_response_arrive_together(live: Live) -> None:
    with connect(live) as connection:
        for _ in range(50):
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: %d" % len(body) in head


def test_a_large_response_that_closes_its_connection_is_complete(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body)["openapi"]
