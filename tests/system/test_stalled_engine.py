"""Engines that do not finish a batch: readiness, metrics, the end of the process, and its restart."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.support.edited_graph import edit_graph
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.service.support.stalling_graph import WHITE, loop_forever, search_forever
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.scoring_clients import SCORE_PATH
from tests.system.support.service_process import TIMEOUT_SECONDS, ServiceProcess, Start

PNG = {"content-type": "image/png"}
STALLED = "ood_engine_stalled_seconds"
STALLS = "ood_engine_stalls_total"
TINY = {"model": "tiny", "version": "1"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`tiny`, of which a white picture takes minutes in one operator, and `other`, which is sound."""
    edit_graph(make_tiny_bundle(tmp_path / "models"), search_forever)
    make_tiny_bundle(tmp_path / "models", name="other")
    return tmp_path / "models"


@contextmanager
def stalled(service: ServiceProcess) -> Iterator[list[int]]:
    """Send a picture that stalls `tiny`; the list gets the status of the response, or 0 if the connection broke."""
    statuses: list[int] = []

    def send() -> None:
        try:
            statuses.append(
                httpx.post(service.address + SCORE_PATH, content=WHITE, headers=PNG, timeout=None).status_code
            )
        except httpx.TransportError:
            statuses.append(0)

    thread = threading.Thread(target=send)
    thread.start()
    yield statuses
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()


def is_ready(service: ServiceProcess) -> bool:
    return service.client.get("/readyz").status_code == 200


def test_a_stalled_engine_makes_the_process_not_ready_and_does_not_delay_its_end(models: Path, start: Start) -> None:
    service = start(models, "--stall-seconds", "1", "--stall-exit-seconds", "0", "--timeout-ms", "1000")
    with stalled(service) as statuses:
        until(lambda: not is_ready(service))
        answer = service.client.get("/readyz")
        assert answer.json()["status"] == "stalled"
        assert "has not finished a batch" in answer.json()["reason"]
        assert "tiny" not in answer.text, "strangers may read it"
        assert value(service.client, STALLED, **TINY) > 1
        assert value(service.client, STALLS, **TINY) == 1
        assert value(service.client, STALLED, model="other", version="1") == 0
        for route in ("/v2/health/ready", "/v2/models/other/ready"):
            assert service.client.get(route).status_code == 503
        assert service.client.get("/healthz").status_code == 200
        other = service.client.post("/v1/models/other/score", content=picture(), headers=PNG)
        assert other.status_code == 200
        assert service.end() == 0
    assert statuses == [504]


def test_a_call_that_onnx_runtime_can_end_leaves_the_process_ready(tmp_path: Path, start: Start) -> None:
    edit_graph(make_tiny_bundle(tmp_path), loop_forever)
    service = start(tmp_path, "--stall-seconds", "0.5")
    with stalled(service) as statuses:
        until(lambda: bool(statuses))
    assert statuses == [500]
    until(lambda: is_ready(service))
    assert value(service.client, STALLS, **TINY) == 1
    assert service.client.post(SCORE_PATH, content=picture(), headers=PNG).status_code == 200
    assert service.end(signal.SIGTERM) == 0


def test_a_process_with_an_engine_that_does_not_recover_ends_with_an_exit_code(models: Path, start: Start) -> None:
    service = start(models, "--stall-seconds", "1", "--stall-exit-seconds", "1.5", "--grace-seconds", "0")
    with stalled(service) as statuses:
        assert service.wait() == 70
    assert statuses[0] in (0, 500)


def test_a_worker_with_an_engine_that_does_not_recover_is_replaced(models: Path, start: Start) -> None:
    flags = ("--stall-seconds", "1", "--stall-exit-seconds", "1.5", "--grace-seconds", "0")
    service = start(models, "--workers", "2", "--log-format", "json", *flags)
    until(lambda: len(psutil.Process(service.process.pid).children()) == 2)
    with stalled(service):
        until(lambda: bool(service.log_entries("worker died")))
    assert service.log_entries("worker died")[0]["reason"] == "ended with exit code 70"

    def answers() -> bool:
        try:
            return httpx.post(service.address + SCORE_PATH, content=picture(), headers=PNG).status_code == 200
        except httpx.TransportError:
            return False

    until(answers)
    assert service.end() == 0
