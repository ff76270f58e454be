"""`OOD_WORKERS`: several real processes on one port, through their life and their deaths."""

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

from tests.service.support.exposition import samples, value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.conftest import Service, Start, run_to_its_end

PNG = {"content-type": "image/png"}
TINY = {"model": "tiny", "version": "1"}
READY = "ood_workers_ready"
T = TypeVar("T")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def two(models: Path, start: Start) -> Service:
    """Two workers, both ready."""
    service = start(models, "--workers", "2", "--log-format", "json", "--log-level", "debug")
    until(lambda: fresh(service, lambda client: value(client, READY)) == 2, 120)
    return service


def fresh(service: Service, ask: Callable[[httpx.Client], T]) -> T:
    """On a connection of its own, which either worker may accept."""
    with httpx.Client(base_url=service.address, timeout=30) as client:
        return ask(client)


def score(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/models/tiny/score", content=picture(), headers=PNG)


def workers_of(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children()


def lines(service: Service, event: str) -> list[dict[str, object]]:
    logged = [json.loads(line) for line in list(service.log)]
    return [line for line in logged if line["event"] == event]


class Load:
    """Clients that send one request after the other, each on its connection, until that is closed or `stop`."""

    def __init__(self, service: Service, clients: int, *, reconnect: bool = False) -> None:
        self.statuses: list[int] = []
        self.failures: list[httpx.TransportError] = []
        self.stop = threading.Event()
        self._address, self._reconnect = service.address, reconnect
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.statuses) > 5 * clients)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._address, timeout=120) as client:
            while not self.stop.is_set():
                try:
                    answer = score(client)
                except httpx.TransportError as error:
                    self.failures.append(error)
                    if self._reconnect:
                        continue
                    return
                self.statuses.append(answer.status_code)
                # A worker that starts needs the cores, too.
                time.sleep(0.002)
                if answer.headers.get("connection") == "close":
                    return


def test_both_workers_answer_and_either_tells_the_metrics_of_both(two: Service) -> None:
    # Kept, so that each worker has the fewest connections at some time.
    clients = [httpx.Client(base_url=two.address, timeout=30) for _ in range(6)]
    for client, _ in itertools.product(clients, range(5)):
        assert score(client).status_code == 200
    assert {value(client, "ood_inputs_total", **TINY) for client in clients} == {30}
    route = {"route": "/v1/models/{model}/score", "method": "POST", "status": "200"}
    assert {value(client, "ood_http_request_seconds_count", **route) for client in clients} == {30}
    assert {value(client, "ood_queue_capacity", model="tiny") for client in clients} == {1024}
    assert {value(client, "ood_model_info", **TINY, provider="CPUExecutionProvider") for client in clients} == {1}
    for client in clients:
        client.close()
    assert two.end() == 0
    asked = lines(two, "request")
    assert {line["worker"] for line in asked if "score" in str(line["path"])} == {0, 1}
    assert {line["worker"] for line in asked if line["path"] == "/metrics"} == {0, 1}


def test_the_banner_comes_once_and_every_request_after_it_is_answered(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2")
    assert "workers   2" in service.banner
    while fresh(service, lambda client: value(client, READY)) < 2:
        assert fresh(service, score).status_code == 200
        assert fresh(service, lambda client: client.get("/readyz")).status_code == 200
    assert service.end() == 0
    assert service.process.stdout is not None
    assert service.process.stdout.read() == ""


def test_until_the_first_worker_is_ready_connections_are_refused(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2")
    port = str(service.port)
    assert service.end() == 0
    seen: set[str] = set()
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            try:
                with httpx.Client(timeout=30) as client:
                    seen.add(str(client.get(f"http://127.0.0.1:{port}/readyz").status_code))
            except httpx.ConnectError:
                seen.add("refused")
            time.sleep(0.01)

    thread = threading.Thread(target=knock)
    thread.start()
    again = start(models, "--workers", "2", "--port", port)
    until(lambda: fresh(again, lambda client: value(client, READY)) == 2, 120)
    done.set()
    thread.join()
    assert seen == {"refused", "200"}


def test_a_killed_worker_costs_what_it_held_comes_back_and_no_counter_falls(two: Service) -> None:
    clients = 8
    load = Load(two, clients, reconnect=True)
    victim, other = workers_of(two)
    counted = [fresh(two, lambda client: value(client, "ood_inputs_total", **TINY))]
    victim.kill()

    def both_are_there() -> bool:
        told = fresh(two, samples)
        counted.append(told["ood_inputs_total", frozenset(TINY.items())])
        return told[READY, frozenset()] == 2 and bool(lines(two, "worker died"))

    until(both_are_there, 120)
    counted.append(fresh(two, lambda client: value(client, "ood_inputs_total", **TINY)))
    load.stop.set()
    load.join()
    assert set(load.statuses) == {200}
    # A client has one request at a time, and its next one goes to a worker that lives.
    assert len(load.failures) <= clients
    assert counted == sorted(counted)
    assert other.is_running()
    (died,) = lines(two, "worker died")
    assert died["reason"] == "ended by SIGKILL"
    assert two.end() == 0


def test_sigterm_under_load_answers_all_that_was_accepted_and_exits_with_0(two: Service) -> None:
    load = Load(two, 8)
    two.process.send_signal(signal.SIGTERM)
    load.join()
    assert two.wait() == 0
    assert load.failures == []
    assert set(load.statuses) <= {200, 503}
    assert {line["worker"] for line in lines(two, "draining") if "worker" in line} == {0, 1}


def test_a_second_signal_ends_all_at_once(two: Service) -> None:
    workers = workers_of(two)
    with socket.create_connection(("127.0.0.1", two.port)) as slow:
        slow.sendall(b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.3)
        two.process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert two.process.poll() is None
        began = time.monotonic()
        assert two.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 5
    assert not any(worker.is_running() for worker in workers)


def test_signals_that_come_to_every_process_drain_all_the_same(two: Service) -> None:
    load = Load(two, 8)
    # As systemd ends a service; and a worker gets it from its supervisor as well.
    for process in (*workers_of(two), two.process):
        process.send_signal(signal.SIGTERM)
    load.join()
    assert two.wait() == 0
    assert load.failures == []
    assert not lines(two, "worker died")


def test_sigusr1_forgets_the_drift_evidence_of_every_worker(two: Service) -> None:
    two.process.send_signal(signal.SIGUSR1)
    until(lambda: len(lines(two, "drift evidence reset")) == 2)
    assert {line["worker"] for line in lines(two, "drift evidence reset")} == {0, 1}
    assert fresh(two, score).status_code == 200
    assert two.end() == 0


def test_workers_without_their_supervisor_answer_what_they_hold_and_end(two: Service) -> None:
    load = Load(two, 4)
    workers = workers_of(two)
    os.kill(two.process.pid, signal.SIGKILL)
    load.join()
    assert load.failures == []
    _, left = psutil.wait_procs(workers, timeout=20)
    assert left == []


def test_a_new_version_is_served_by_every_worker(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2", "--reload", "poll", "--reload-seconds", "0.1")
    until(lambda: fresh(service, lambda client: value(client, READY)) == 2, 120)
    make_tiny_bundle(models.parent, version="2", seed=1).rename(models / "tiny" / "2")
    loaded = {"model": "tiny", "result": "loaded"}
    until(lambda: fresh(service, lambda client: value(client, "ood_reloads_total", **loaded)) == 4)
    assert {fresh(service, lambda client: score(client).json()["version"]) for _ in range(20)} == {"2"}
    assert service.end() == 0


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--api-keys-file", "no-such-keys"), 2, "The key file no-such-keys cannot be read"),
        (("--models", "no-such-folder"), 1, "The model repository 'no-such-folder' is not a folder"),
        (("--reload", "admin"), 2, "OOD_WORKERS (2) cannot be combined with OOD_ADMIN_KEYS_FILE"),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_its_reason_said_once(
    models: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = run_to_its_end("--models", str(models), "--workers", "2", *flags)
    assert done.returncode == code, done.stderr
    assert done.stderr.count(said) == 1
    assert "Traceback" not in done.stderr


def test_a_taken_port_ends_the_start_with_its_reason(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_to_its_end("--models", str(models), "--workers", "2", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in done.stderr
