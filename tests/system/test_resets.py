"""Thousands of connections that clients reset at any point of a request: no memory and no open files are left."""

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.scoring_clients import SCORE_PATH, score
from tests.system.support.service_process import TIMEOUT_SECONDS, Start

RESETS = int(os.environ.get("RESETS", "3000"))
_WARM_UP_RESETS = RESETS // 5
_BODY_BYTES = 50_000
_POST = f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n".encode()
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PAGE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Exchange:
    """A client that sends `request`, waits until the answer begins with `answer`, sends `rest`, and resets."""

    request: bytes
    answer: bytes = b""
    rest: bytes = b""


EXCHANGES = (
    Exchange(b""),
    Exchange(_POST + b"Content-Le"),
    # The interim response proves that the service has accepted the request and waits for its body.
    Exchange(_POST + b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n", _CONTINUE, bytes(_BODY_BYTES)),
    Exchange(
        _POST + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        _CONTINUE,
        b"%x\r\n%b\r\n40000\r\n" % (_BODY_BYTES, bytes(_BODY_BYTES)),
    ),
    # Whole requests, reset before, while or after they are scored.
    Exchange(_POST + b"Content-Length: %d\r\n\r\n%b" % (len(picture()), picture())),
    Exchange((_POST + b"Content-Length: %d\r\n\r\n%b" % (len(picture()), picture())) * 20),
    # More answers than the buffers of both sides hold.
    Exchange(_PAGE * 40, b"HTTP/1.1 200 OK\r\n"),
)
_ACCEPTED = sum(exchange.answer == _CONTINUE for exchange in EXCHANGES)


def reset_all(port: int) -> None:
    """Open one connection for each exchange, and reset all of them."""
    with contextlib.ExitStack() as connections:
        opened = []
        for exchange in EXCHANGES:
            connection = connections.enter_context(socket.socket())
            connection.settimeout(TIMEOUT_SECONDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(exchange.request)
            opened.append((connection, exchange))
        for connection, exchange in opened:
            if exchange.answer:
                assert connection.recv(len(exchange.answer), socket.MSG_WAITALL) == exchange.answer
            connection.sendall(exchange.rest)


@pytest.mark.timeout(900)
def test_thousands_of_reset_connections_leave_no_memory_and_no_open_files(tmp_path: Path, start: Start) -> None:
    make_tiny_bundle(tmp_path)
    service = start(tmp_path, "--log-level", "error")
    assert score(service.client).status_code == 200
    open_files = service.open_files
    resets = 0
    warm = 0
    while resets < RESETS:
        if not warm and resets >= _WARM_UP_RESETS:
            warm = service.resident_bytes
        reset_all(service.port)
        resets += len(EXCHANGES)
    until(lambda: service.open_files <= open_files)
    growth = service.resident_bytes - warm
    print(f"{resets} resets, {warm / 2**20:.0f} MiB when warm, {growth / 2**20:+.1f} MiB since")
    # Keeping what the service has read of each body would take 30 MiB.
    assert growth < 12 * 2**20
    route = {"route": "/v1/models/{model}/score", "method": "POST"}
    disconnected = value(service.client, "ood_http_requests_total", **route, status="499")
    assert disconnected >= resets // len(EXCHANGES) * _ACCEPTED
    assert value(service.client, "ood_queue_depth", model="tiny") == 0
    assert score(service.client).status_code == 200
    assert service.end() == 0
    assert "Traceback" not in "".join(service.log)
