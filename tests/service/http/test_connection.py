"""Connections that are silent, slow or not HTTP: each is closed in time, with a problem response if possible."""

import asyncio
import contextlib
import gc
import json
import re
import select
import socket
import struct
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
from service.repository.served import Repository
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.virtual_clock import VirtualClockLoop, run_with_virtual_clock
from tests.support.waiting import until

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
        load_shedder = LoadShedder(Repository(Path()), AccessLog(Metrics(), enabled=False), Lifecycle())
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


def chunked(trailers: bytes) -> bytes:
    body = b"2\r\n{}\r\n0\r\n"
    return HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body + trailers + b"\r\n"


def test_trailers_are_no_headers(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(chunked(b"X-Request-ID: from-trailer\r\nContent-Type: image/png\r\n"))
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first, _, second = until_closed(connection).partition(b"HTTP/1.1 200 ")
    assert b"invalid-parameter" in first
    assert b"from-trailer" not in first
    assert second


@pytest.mark.parametrize("path", [b"/v1/models/tiny/score", b"/nothing"], ids=["served", "answered"])
def test_a_trailer_that_closes_the_connection_is_announced_by_the_response(live: Live, path: bytes) -> None:
    request = chunked(b"Connection: close\r\n").replace(b"/v1/models/tiny/score", path)
    body = request.index(b"2\r\n{}")
    with connect(live) as connection:
        connection.sendall(request[:body])
        answered_early = path == b"/nothing"
        if answered_early:
            until(lambda: is_readable(connection, b"404"))
        connection.sendall(request[body:])
        response = until_closed(connection)
    assert response.count(b"HTTP/1.1 ") == 1
    assert (b"connection: close" in response) is not answered_early


@pytest.mark.parametrize("path", [b"/v1/models/tiny/score", b"/nothing"], ids=["served", "answered"])
@pytest.mark.parametrize("part", [b"a: b\r\n" * 1000, b"y" * 6000], ids=["many", "one"])
def test_trailers_over_the_limit_end_the_connection(live: Live, path: bytes, part: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(chunked(b"X: ").replace(b"/v1/models/tiny/score", path).removesuffix(b"\r\n"))
        if path == b"/nothing":
            until(lambda: is_readable(connection, b"404"))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 100 * MAX_HEADERS_BYTES and not is_readable(connection, b"431"):
                connection.sendall(part)
                sent += len(part)
        response = until_closed(connection)
    assert response.startswith(b"HTTP/1.1 404 " if path == b"/nothing" else b"HTTP/1.1 431 ")
    assert response.count(b"HTTP/1.1 ") == 1


def is_readable(connection: socket.socket, status: bytes) -> bool:
    """Whether a response with `status` has come, which stays to be read."""
    ready, _, _ = select.select([connection], [], [], 0)
    return bool(ready) and connection.recv(64, socket.MSG_PEEK).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("line", [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_pipelined_requests_are_parsed_only_when_their_turn_comes(live: Live, line: bytes) -> None:
    request = HEAD + b"Content-Length: 1\r\n\r\n"
    with connect(live) as connection:
        connection.sendall(request + b"x" + (line + b"\r\n") * 10_000)
        received = bytearray()
        while received.count(b"HTTP/1.1 ") < 200:
            received += connection.recv(65_536)
        (served,) = live.server.server_state.connections & own_connections(live, connection)
        assert len(served.pipeline) <= 4096 // len(line)


def own_connections(live: Live, client: socket.socket) -> set[Any]:
    port = client.getsockname()[1]
    return {served for served in live.server.server_state.connections if served.client[1] == port}


def test_a_malformed_request_is_answered_after_the_ones_before_it(live: Live) -> None:
    body = b'{"inputs":["x"]}'
    good = HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connect(live) as connection:
        connection.sendall(good + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
        response = until_closed(connection)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", response) == [b"422", b"200", b"400"]


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        (b"", 400, "malformed-request"),
        (b"Host: a\r\nHost: b\r\n", 400, "malformed-request"),
        (b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501, "unsupported-transfer-encoding"),
    ],
    ids=["no-host", "two-hosts", "gzip"],
)
def test_headers_that_http_1_1_forbids_are_refused(live: Live, headers: bytes, status: int, kind: str) -> None:
    with connect(live) as connection:
        connection.sendall(b"POST /v1/models/tiny/score HTTP/1.1\r\n" + headers + b"\r\n0\r\n\r\n")
        problem_of(until_closed(connection), status, kind)


@pytest.mark.parametrize("headers", [b"", b"Host: x\r\n", b"Host: x\r\nConnection: keep-alive\r\n"])
@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/docs", b"/assets/swagger-ui.css"])
def test_http_1_0_clients_get_a_complete_response_and_no_chunks(live: Live, headers: bytes, path: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.0\r\n" + headers + b"\r\n")
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"content-length: %d\r\n" % len(body) in head
    assert b"connection: close" in head


def test_a_request_of_http_1_0_with_a_body_gets_no_interim_response(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(b"POST /v1/models/tiny/score HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
        assert until_closed(connection).startswith(b"HTTP/1.1 422 ")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("connection_header", ["close", "keep-alive"])
def test_a_large_body_that_is_refused_early_never_costs_the_client_its_status(
    live: Live, framing: str, connection_header: str
) -> None:
    # The client sends everything before it reads, as many do. The body is larger than all buffers in between.
    part, parts = bytes(1 << 20), 48
    with connect(live) as connection:
        lines = f"POST /v1/models/none/score HTTP/1.1\r\nHost: x\r\nConnection: {connection_header}\r\n"
        size = f"Content-Length: {parts * len(part)}" if framing == "length" else "Transfer-Encoding: chunked"
        connection.sendall(f"{lines}{size}\r\n\r\n".encode())
        for _ in range(parts):
            connection.sendall(part if framing == "length" else b"%x\r\n%s\r\n" % (len(part), part))
        connection.sendall(b"" if framing == "length" else b"0\r\n\r\n")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = until_closed(connection)
    assert response.startswith(b"HTTP/1.1 404 ")
    assert (b"HTTP/1.1 200 " in response) is (connection_header == "keep-alive")


@pytest.mark.parametrize("path", ["/v1/models/none/score", "/v1/models/tiny/score"])
def test_a_refusal_before_100_continue_closes_the_connection(live: Live, path: str) -> None:
    # The client sends no body after the refusal, so that its next bytes would be taken for the body.
    with connect(live) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 200000000\r\n\r\n"
        connection.sendall(head.encode())
        response = until_closed(connection)
    assert response.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 413 "))
    assert b"connection: close" in response


def test_a_body_after_100_continue_keeps_the_connection(live: Live) -> None:
    body = b'{"inputs":["x"]}'
    with connect(live) as connection:
        head = HEAD + b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        for _ in range(2):
            connection.sendall(head)
            assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            response = connection.recv(65_536)
            assert response.startswith(b"HTTP/1.1 422 ")
            assert b"connection: close" not in response


def test_a_client_that_neither_reads_nor_closes_after_the_last_response_is_disconnected(strict: Live) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        until(lambda: not own_connections(strict, connection))


def test_connections_that_are_reset_leave_no_memory_behind(live: Live) -> None:
    request = HEAD + b"Content-Type: image/png\r\nContent-Length: 100000\r\n\r\n" + bytes(5000)

    def reset_connections(count: int) -> None:
        for _ in range(count):
            connection = connect(live)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
            connection.close()
        until(lambda: live.app.state.lifecycle.in_flight == 0)

    reset_connections(100)
    gc.collect()
    before = count_of(Connection)
    reset_connections(200)
    until(lambda: count_of(Connection) <= before + 1)


def count_of(kind: type) -> int:
    gc.collect()
    return sum(1 for item in gc.get_objects() if type(item) is kind)
