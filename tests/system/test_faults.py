"""Faults around a real process: their effect is limited, and other requests are served."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.support.exposition import value
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.support.waiting import until
from tests.system.support.programs import free_port
from tests.system.support.scoring_clients import score
from tests.system.support.service_process import COMMAND, ENVIRONMENT, ROOT, TIMEOUT_SECONDS, Start

CONNECTIONS = 10_000
IDLE_CONNECTIONS = 1_000
PAGES = ("/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/models", "/v1/models/tiny")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path)
    make_tiny_text_bundle(tmp_path)
    return tmp_path


def test_models_deleted_or_truncated_while_they_are_served_are_served_on(models: Path, start: Start) -> None:
    service = start(models)
    for file in (models / "tiny").rglob("*.*"):
        os.truncate(file, 0)
    shutil.rmtree(models / "topics")
    for _ in range(20):
        assert score(service.client).status_code == 200
        assert service.client.post("/v1/models/topics/score", json={"inputs": ["the ball"]}).status_code == 200
    assert {page: service.client.get(page).status_code for page in PAGES} == dict.fromkeys(PAGES, 200)
    assert service.end() == 0


def test_with_a_full_disk_beneath_its_output_the_service_serves_and_counts_the_lines_it_lost(models: Path) -> None:
    # The banner is lost too, so the test chooses the port.
    port = free_port()
    flags = ("--models", str(models), "--port", str(port), "--log-level", "debug")
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([*COMMAND, *flags], cwd=ROOT, env=ENVIRONMENT, stdout=full, stderr=full)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_SECONDS) as client:
            until(lambda: is_ready(client))
            assert {score(client).status_code for _ in range(50)} == {200}
            assert value(client, "ood_lost_log_lines_total") >= 50
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_ten_thousand_idle_connections_cost_little_memory_and_do_not_slow_others(
    models: Path, start: Start, max_open_files: int
) -> None:
    service = start(models, "--log-level", "error", "--receive-timeout-seconds", str(10 * TIMEOUT_SECONDS))
    # Raised for the clients' end of the connections, after the service has started with the usual limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open_files, max_open_files))
    process = psutil.Process(service.process.pid)
    score(service.client)
    alone = cpu_seconds_per_request(process, service.client)
    before = service.resident_bytes
    with contextlib.ExitStack() as connections:
        # Idle connections are the last ones, because the service closes them after 75 s; those with a part of a request
        # stay open as long as the receive timeout allows.
        for index in range(CONNECTIONS):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            if index < CONNECTIONS - IDLE_CONNECTIONS:
                connection.sendall(b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Le")
        # The service accepts the last connections a moment later.
        until(lambda: service.open_files > CONNECTIONS)
        growth = service.resident_bytes - before
        with_connections = cpu_seconds_per_request(process, service.client)
    print(f"{growth / CONNECTIONS:.0f} bytes per connection, {with_connections / alone:.2f} times the time per request")
    # Measured: 7 KiB.
    assert growth < CONNECTIONS * 16_384
    # Processor time does not depend on other programs. A cost per open connection would exceed the bound many times.
    assert with_connections < 5 * alone
    until(lambda: service.open_files < 100)
    assert score(service.client).status_code == 200


def test_a_process_out_of_file_handles_serves_connected_clients_and_recovers(models: Path, start: Start) -> None:
    service = start(models, "--log-level", "error")
    score(service.client)
    limit = service.open_files + 20
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as connections:
        for _ in range(100):
            connections.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        until(lambda: service.open_files >= limit - 1)
        assert score(service.client).status_code == 200
    until(lambda: service.open_files < limit - 10)
    with httpx.Client(base_url=service.address, timeout=TIMEOUT_SECONDS) as new_client:
        assert score(new_client).status_code == 200
    assert service.end() == 0


@pytest.fixture
def max_open_files() -> Iterator[int]:
    """The hard limit of open files. Processes that the test starts have the usual soft limit of 1024."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < CONNECTIONS + 500:
        assert "CI" not in os.environ, f"the hard limit of open files, {limits[1]}, is too low for this test"
        pytest.skip(f"the hard limit of open files is {limits[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def cpu_seconds_per_request(process: psutil.Process, client: httpx.Client, requests: int = 200) -> float:
    """Processor time of `process` per scoring request. The kernel counts it in hundredths of a second."""
    before = sum(process.cpu_times()[:2])
    for _ in range(requests):
        assert score(client).status_code == 200
    return (sum(process.cpu_times()[:2]) - before) / requests
