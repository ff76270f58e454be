"""`/metrics` and `/openapi.json` are made on threads, once for all that ask, while other requests are served."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.routes import openapi
from tests.service.conftest import Live, Serve
from tests.support.waiting import until


class Gate:
    """Blocks callers until it is opened, and notes their threads."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self._opened = threading.Event()

    def enter(self) -> None:
        self.threads.append(threading.get_ident())
        assert self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()


class GatedCollector(Collector):
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        self._gate.enter()
        yield GaugeMetricFamily("gated", "Passed the gate.", 1)


def get_in_background(live: Live, path: str, count: int) -> tuple[list[threading.Thread], list[httpx.Response]]:
    answers: list[httpx.Response] = []

    def get() -> None:
        answers.append(httpx.get(f"http://127.0.0.1:{live.port}{path}", timeout=60))

    threads = [threading.Thread(target=get) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def serve_others_meanwhile(live: Live, path: str, gate: Gate) -> list[httpx.Response]:
    """Ask for `path` five times while `gate` is closed; the service answers another client, then all of them."""
    threads, answers = get_in_background(live, path, 5)
    until(lambda: live.app.state.lifecycle.in_flight == 5 and bool(gate.threads))
    # The answer proves that the gate blocks another thread than that of the event loop.
    assert live.client.get("/healthz").status_code == 200
    gate.open()
    for thread in threads:
        thread.join()
    return answers


def test_metrics_are_rendered_once_for_concurrent_scrapes_and_block_no_request(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        gate = Gate()
        live.app.state.metrics.registry.register(GatedCollector(gate))
        answers = serve_others_meanwhile(live, "/metrics", gate)
        assert len(gate.threads) == 1
        assert all("gated 1.0" in answer.text for answer in answers)
        assert len({answer.text for answer in answers}) == 1
        # A later scrape gets its own, current rendering.
        before = answers[0].text
        assert live.client.get("/metrics").text != before
        assert len(gate.threads) == 2


def test_the_openapi_document_is_built_once_and_blocks_no_request(
    repository: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(repository) as live:
        gate, build = Gate(), openapi.get_openapi

        def gated(**arguments: Any) -> dict[str, Any]:
            gate.enter()
            return build(**arguments)

        monkeypatch.setattr(openapi, "get_openapi", gated)
        answers = serve_others_meanwhile(live, "/openapi.json", gate)
        assert {answer.status_code for answer in answers} == {200}
        for _ in range(3):
            assert live.client.get("/openapi.json").text == answers[0].text
        assert len(gate.threads) == 1


def test_a_new_first_model_makes_a_new_document(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        before = json.loads(live.client.get("/openapi.json").text)
        served = live.app.state.repository
        tiny = [model for model in served if model.name == "tiny" and model.version == "1"]
        rules = {}
        all_models = list(served)
        live.server.servers[0].get_loop().call_soon_threadsafe(served.serve, tiny, rules)
        until(lambda: served.names == ["tiny"])
        after = live.client.get("/openapi.json").json()
        live.server.servers[0].get_loop().call_soon_threadsafe(served.serve, all_models, rules)
        until(lambda: len(served.names) == 2)
        assert before != after
        assert '"example": "tiny"' in json.dumps(after)
        assert live.client.get("/openapi.json").json() == before
