"""`OOD_WORKERS`: several worker processes on one port, from their start to their end."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from service.settings import Settings
from tests.service.support.exposition import samples, value
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.accepted_requests import assert_every_accepted_request_was_answered
from tests.system.support.programs import free_port
from tests.system.support.scoring_clients import SCORE_PATH, ScoringClients, score
from tests.system.support.service_process import (
    ENVIRONMENT,
    ROOT,
    TIMEOUT_SECONDS,
    ServiceProcess,
    Start,
    on_new_connection,
    run_to_exit,
)
from tests.system.support.unfinished_request import unfinished_request
from tests.system.support.worker_processes import READY, assert_service_ends_without_supervisor

TINY = {"model": "tiny", "version": "1"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


def start_two_workers(start: Start, models: Path, *flags: str) -> ServiceProcess:
    """A service with two ready workers."""
    service = start(models, "--workers", "2", "--log-format", "json", "--log-level", "debug", *flags)
    until(lambda: on_new_connection(service, lambda client: value(client, READY)) == 2)
    return service


@pytest.fixture
def two_workers(models: Path, start: Start) -> ServiceProcess:
    return start_two_workers(start, models)


def worker_processes(service: ServiceProcess) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children()


def workers_that_served(service: ServiceProcess, path: str) -> set[int]:
    """The workers whose access log has requests for `path`."""
    return {entry["worker"] for entry in service.log_entries("request") if entry["path"] == path}


def scored_inputs(client: httpx.Client) -> float:
    return value(client, "ood_inputs_total", **TINY)


def test_a_worker_ends_whose_supervisor_has_ended_before_it_read_the_banner(models: Path, tmp_path: Path) -> None:
    settings = Settings(models=str(models), threads=1, grace_seconds=0)
    shared = tmp_path / "shared"
    shared.mkdir()
    ours, theirs = socket.socketpair()
    with socket.socket() as listener, theirs:
        listener.bind(("127.0.0.1", 0))
        task = {"settings": settings.model_dump(mode="json"), "folder": str(shared), "index": 0}
        task |= {"engine_process": False, "sockets": [listener.fileno()]}
        worker = subprocess.Popen(
            [sys.executable, "-m", "service.server.worker", str(theirs.fileno())],
            cwd=ROOT,
            env=ENVIRONMENT,
            pass_fds=[theirs.fileno(), listener.fileno()],
        )
    with ours:
        ours.sendall(json.dumps(task).encode() + b"\n")
        assert ours.recv(1, socket.MSG_PEEK)
    try:
        assert worker.wait(TIMEOUT_SECONDS) == 0
    finally:
        worker.kill()


def test_both_workers_serve_and_each_reports_the_metrics_of_both(two_workers: ServiceProcess) -> None:
    clients: list[httpx.Client] = []

    def both_served(path: str, use: Callable[[httpx.Client], object]) -> bool:
        # A busy worker may leave a connection to the other one, so the number of connections that are needed varies.
        # The connections stay open: new ones go to the worker with fewer.
        clients.append(httpx.Client(base_url=two_workers.address, timeout=TIMEOUT_SECONDS))
        use(clients[-1])
        return workers_that_served(two_workers, path) == {0, 1}

    until(lambda: both_served(SCORE_PATH, score))
    scored = len(clients)
    until(lambda: both_served("/metrics", scored_inputs))
    assert {scored_inputs(client) for client in clients} == {scored}
    route = {"route": "/v1/models/{model}/score", "method": "POST", "status": "200"}
    assert {value(client, "ood_http_request_seconds_count", **route) for client in clients} == {scored}
    assert {value(client, "ood_queue_capacity", model="tiny") for client in clients} == {1024}
    assert {value(client, "ood_model_info", **TINY, provider="CPUExecutionProvider") for client in clients} == {1}
    for client in clients:
        client.close()
    assert two_workers.end() == 0


def test_the_banner_is_printed_once_and_every_request_after_it_is_answered(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2")
    assert "workers   2" in service.banner
    while on_new_connection(service, lambda client: value(client, READY)) < 2:
        assert on_new_connection(service, score).status_code == 200
        assert on_new_connection(service, lambda client: client.get("/readyz")).status_code == 200
    assert service.end() == 0
    assert service.process.stdout is not None
    assert service.process.stdout.read() == ""


def test_connections_are_refused_until_the_first_worker_is_ready(models: Path, start: Start) -> None:
    port = free_port()
    outcomes: set[object] = set()
    stopped = threading.Event()

    def connect_repeatedly() -> None:
        while not stopped.is_set():
            try:
                with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
                    outcomes.add(client.get(f"http://127.0.0.1:{port}/readyz").status_code)
            except httpx.ConnectError:
                outcomes.add("refused")
            time.sleep(0.01)

    thread = threading.Thread(target=connect_repeatedly)
    thread.start()
    try:
        until(lambda: "refused" in outcomes)
        start_two_workers(start, models, "--port", str(port))
        until(lambda: 200 in outcomes)
    finally:
        stopped.set()
        thread.join()
    assert outcomes == {"refused", 200}


def test_after_the_death_of_a_worker_only_its_requests_fail_and_no_counter_decreases(
    two_workers: ServiceProcess,
) -> None:
    clients = ScoringClients(two_workers.address, 8)
    killed, other = worker_processes(two_workers)
    counts = [on_new_connection(two_workers, scored_inputs)]
    killed.kill()

    def both_ready_again() -> bool:
        metrics = on_new_connection(two_workers, samples)
        counts.append(metrics["ood_inputs_total", frozenset(TINY.items())])
        return metrics[READY, frozenset()] == 2 and bool(two_workers.log_entries("worker died"))

    until(both_ready_again)
    counts.append(on_new_connection(two_workers, scored_inputs))
    clients.stop()
    # A client has one request at a time, and sends its next one to the other worker.
    assert clients.outcomes.total() - clients.outcomes[200] == len(clients.failures) <= 8
    assert counts == sorted(counts)
    assert other.is_running()
    (death,) = two_workers.log_entries("worker died")
    assert death["reason"] == "ended by SIGKILL"
    assert two_workers.end() == 0


def test_sigterm_under_load_answers_every_accepted_request_and_exits_with_0(two_workers: ServiceProcess) -> None:
    clients = ScoringClients(two_workers.address, 8, reconnect=False)
    two_workers.process.send_signal(signal.SIGTERM)
    clients.join()
    assert two_workers.wait() == 0
    assert_every_accepted_request_was_answered(two_workers, clients)
    assert {entry["worker"] for entry in two_workers.log_entries("draining") if "worker" in entry} == {0, 1}


def test_a_second_signal_ends_all_workers_before_the_grace_period_is_over(models: Path, start: Start) -> None:
    long = str(10 * TIMEOUT_SECONDS)
    service = start_two_workers(start, models, "--grace-seconds", long, "--receive-timeout-seconds", long)
    workers = worker_processes(service)
    with unfinished_request(service.port):
        service.process.send_signal(signal.SIGINT)
        until(lambda: len({entry.get("worker") for entry in service.log_entries("draining")} & {0, 1}) == 2)
        assert service.process.poll() is None
        assert service.end(signal.SIGINT) == 0
    assert not any(worker.is_running() for worker in workers)


def test_a_signal_to_every_process_starts_one_drain(two_workers: ServiceProcess) -> None:
    clients = ScoringClients(two_workers.address, 8, reconnect=False)
    # systemd signals every process of a service, and a worker also gets the signal from its supervisor.
    for process in (*worker_processes(two_workers), two_workers.process):
        process.send_signal(signal.SIGTERM)
    clients.join()
    assert two_workers.wait() == 0
    assert_every_accepted_request_was_answered(two_workers, clients)
    assert not two_workers.log_entries("worker died")


def test_sigusr1_resets_the_drift_evidence_of_every_worker(two_workers: ServiceProcess) -> None:
    two_workers.process.send_signal(signal.SIGUSR1)
    until(lambda: len(two_workers.log_entries("drift evidence reset")) == 2)
    assert {entry["worker"] for entry in two_workers.log_entries("drift evidence reset")} == {0, 1}
    assert on_new_connection(two_workers, score).status_code == 200
    assert two_workers.end() == 0


def test_workers_without_their_supervisor_answer_every_accepted_request_and_end(two_workers: ServiceProcess) -> None:
    assert_service_ends_without_supervisor(two_workers)


def test_a_new_version_is_served_by_every_worker(models: Path, start: Start) -> None:
    service = start_two_workers(start, models, "--reload", "poll", "--reload-seconds", "0.1")
    make_tiny_bundle(models.parent, version="2", seed=1).rename(models / "tiny" / "2")
    loaded = {"model": "tiny", "result": "loaded"}
    until(lambda: on_new_connection(service, lambda client: value(client, "ood_reloads_total", **loaded)) == 4)
    versions = {on_new_connection(service, lambda client: score(client).json()["version"]) for _ in range(20)}
    assert versions == {"2"}
    assert service.end() == 0


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (("--api-keys-file", "no-such-keys"), 2, "The key file no-such-keys cannot be read"),
        (("--models", "no-such-folder"), 1, "The model repository 'no-such-folder' is not a folder"),
        (("--reload", "admin"), 2, "OOD_WORKERS (2) cannot be combined with OOD_ADMIN_KEYS_FILE"),
    ],
)
def test_a_start_that_fails_prints_its_reason_once(
    models: Path, flags: tuple[str, ...], code: int, reason: str
) -> None:
    result = run_to_exit("--models", str(models), "--workers", "2", *flags)
    assert result.returncode == code, result.stderr
    assert result.stderr.count(reason) == 1
    assert "Traceback" not in result.stderr


def test_a_start_on_a_port_in_use_fails_with_the_reason(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run_to_exit("--models", str(models), "--workers", "2", "--port", port)
    assert result.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in result.stderr


def test_workers_do_not_start_if_the_path_of_their_folder_is_too_long_for_sockets(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    result = run_to_exit("--models", str(models), "--workers", "2", variables={"TMPDIR": str(folder)})
    assert result.returncode == 1
    assert "Set TMPDIR" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(folder.iterdir()) == []
