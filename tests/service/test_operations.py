"""Health, metrics, the page, the OpenAPI document, the lifecycle."""

import asyncio
import base64
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.lifecycle import Lifecycle, Phase
from service.logs import configure_logs
from service.problems import Draining, Starting
from service.settings import Settings
from tests.service.conftest import Live, Serve
from tests.service.pictures import picture

# API.md's table, as series names.
CONTRACT = {
    "ood_http_requests", "ood_http_request_seconds", "ood_inputs", "ood_flagged_inputs", "ood_input_errors",
    "ood_anomaly_score", "ood_p_value", "ood_batch_size", "ood_queue_seconds", "ood_inference_seconds",
    "ood_preprocess_seconds", "ood_queue_depth", "ood_rejected", "ood_model_info", "ood_threshold", "ood_alpha",
}  # fmt: skip


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(client: httpx.Client, name: str, **labels: str) -> float:
    return samples(client).get((name, frozenset(labels.items())), 0.0)


def test_every_metric_of_the_contract_is_there_under_its_name(live: Live) -> None:
    live.score(picture())
    families = {family.name for family in text_string_to_metric_families(live.client.get("/metrics").text)}
    assert families >= CONTRACT


def test_counters_count_each_input_once(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        good = {"image": base64.b64encode(picture("red")).decode()}
        odd = {"image": base64.b64encode(picture("gray")).decode()}
        live.score(json={"inputs": [good, odd, odd, "text", {"image": "%"}], "scores": ["msp", "entropy"]})
        live.score(picture("gray"))
        live.score(picture("gray"), params={"threshold": "0.99"})
        live.score(b"x")
        live.score(picture(), model="nope")
        tiny = {"model": "tiny", "version": "2"}
        assert value(live.client, "ood_inputs_total", **tiny) == 5
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="msp") == 3
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="entropy") == 2
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="energy") == 0
        assert value(live.client, "ood_p_value_count", **tiny, score="msp") == 5
        assert value(live.client, "ood_anomaly_score_count", **tiny, score="entropy") == 3
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="unsupported-input") == 1
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="invalid-base64") == 1
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="undecodable-image") == 1
        assert value(live.client, "ood_queue_seconds_count", model="tiny") == 5
        assert value(live.client, "ood_batch_size_sum", model="tiny") == 5
        assert value(live.client, "ood_alpha", **tiny) == 0.05
        assert value(live.client, "ood_model_info", **tiny, provider="CPUExecutionProvider") == 1
        route = {"route": "/v1/models/{model}/score", "method": "POST"}
        assert value(live.client, "ood_http_requests_total", **route, status="200") == 3
        assert value(live.client, "ood_http_requests_total", **route, status="422") == 1
        assert value(live.client, "ood_http_requests_total", **route, status="404") == 1
        assert value(live.client, "ood_http_request_seconds_count", **route, status="200") == 3


def test_label_values_are_bounded(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.score(picture(), model="secret-name")
        live.client.get("/secret-path")
        live.client.request("PROPFIND", "/")
        text = live.client.get("/metrics").text
        assert "secret" not in text.lower()
        assert 'route="other"' in text
        assert 'method="other"' in text


def test_every_example_of_the_openapi_document_works(live: Live) -> None:
    document = live.client.get("/openapi.json").json()
    tried = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            named = {each["name"]: each["example"] for each in operation.get("parameters", []) if each["in"] == "path"}
            for example in content.get("application/json", {}).get("examples", {}).values():
                answer = live.client.post(path.format(**named), json=example["value"])
                assert answer.status_code == 200, answer.text
                assert answer.json()["errors"] == 0
                tried += 1
    assert tried == 6


def test_the_openapi_document_describes_answers_and_problems(live: Live) -> None:
    operation = live.client.get("/openapi.json").json()["paths"]["/v1/models/{model}/score"]["post"]
    assert set(operation["responses"]) >= {"200", "400", "404", "413", "415", "422", "503", "504"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/ScoreResponse")
    assert {each["name"] for each in operation["parameters"]} == {"model", "alpha", "threshold", "scores", "timeout_ms"}
    assert set(operation["responses"]["422"]["content"]) == {"application/problem+json"}
    assert {"image/png", "multipart/form-data", "application/json"} <= set(operation["requestBody"]["content"])
    assert live.client.get("/docs").status_code == 200


def test_the_page_links_models_docs_and_metrics(live: Live) -> None:
    answer = live.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    for link in ("/docs", "/metrics", "/v1/models", "/v1/models/tiny", "/openapi.json"):
        assert f'href="{link}"' in answer.text


def test_probes_answer(live: Live) -> None:
    assert (live.client.get("/healthz").status_code, live.client.get("/readyz").status_code) == (200, 200)


def test_work_is_taken_only_between_start_and_drain() -> None:
    life = Lifecycle()
    with pytest.raises(Starting):
        life.require_ready()
    life.ready()
    life.require_ready()
    life.drain()
    life.ready()
    assert life.phase is Phase.DRAINING
    life.require_loaded()
    with pytest.raises(Draining):
        life.require_ready()


def test_while_the_models_load_the_service_answers_503(repository: Path) -> None:
    async def scenario() -> tuple[httpx.Response, ...]:
        app = create_app(Settings(models=str(repository)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return (
                await client.get("/healthz"),
                await client.get("/readyz"),
                await client.post("/v1/models/tiny/score", content=picture()),
            )

    healthy, ready, scored = asyncio.run(scenario())
    assert (healthy.status_code, ready.status_code, scored.status_code) == (200, 503, 503)
    assert (scored.json()["type"], scored.headers["retry-after"]) == ("starting", "1")


def test_a_draining_service_refuses_new_work_and_closes_connections(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.app.state.lifecycle.drain()
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (503, "draining")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        assert live.client.get("/readyz").json() == {"status": "draining"}
        assert live.client.get("/healthz").status_code == 200


class Hold:
    """Makes a model's engine wait, so that what happens behind it can be seen."""

    def __init__(self, live: Live) -> None:
        batcher = live.app.state.repository.get("tiny").batcher
        self.gate = threading.Event()
        self.batches: list[int] = []
        self._run = batcher._run
        batcher._run = self._held

    def _held(self, items: Any) -> Any:
        self.batches.append(len(items))
        assert self.gate.wait(20)
        return self._run(items)

    def until_batches(self, count: int) -> None:
        until(lambda: len(self.batches) >= count)


def until(condition: Any) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.005)


def post_in_background(live: Live, **request: Any) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    url = f"http://127.0.0.1:{live.port}/v1/models/tiny/score"
    request = {"content": picture(), "headers": {"content-type": "image/png"}} | request
    thread = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30, **request)))
    thread.start()
    return thread, answers


def test_a_full_queue_answers_503_with_retry_after_while_the_accepted_are_scored(
    repository: Path, serve: Serve
) -> None:
    with serve(repository, queue_size=2, max_inputs=2) as live:
        hold = Hold(live)
        first, first_answers = post_in_background(live)
        hold.until_batches(1)
        waiting = [post_in_background(live) for _ in range(2)]
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 2)
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        hold.gate.set()
        for thread, answers in [(first, first_answers), *waiting]:
            thread.join()
            assert answers[0].status_code == 200
        assert hold.batches == [1, 2]
        assert value(live.client, "ood_rejected_total", model="tiny", reason="overloaded") == 1
        assert value(live.client, "ood_queue_depth", model="tiny") == 0


def test_a_request_that_waits_too_long_is_504_and_never_computed(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        hold = Hold(live)
        first, _ = post_in_background(live)
        hold.until_batches(1)
        started = time.monotonic()
        answer = live.score(picture(), params={"timeout_ms": "50"})
        assert (answer.status_code, answer.json()["type"]) == (504, "deadline-passed")
        assert 0.05 <= time.monotonic() - started < 10
        assert value(live.client, "ood_queue_depth", model="tiny") == 0
        hold.gate.set()
        first.join()
        assert hold.batches == [1]
        assert value(live.client, "ood_rejected_total", model="tiny", reason="deadline-passed") == 1


def test_a_client_that_hangs_up_frees_its_place(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        hold = Hold(live)
        first, _ = post_in_background(live)
        hold.until_batches(1)
        body = picture()
        with socket.create_connection(("127.0.0.1", live.port)) as client:
            head = f"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 0)
        hold.gate.set()
        first.join()
        assert hold.batches == [1]
        until(lambda: value(live.client, "ood_rejected_total", model="tiny", reason="client-gone") == 1)


def test_an_engine_failure_is_a_typed_500_for_its_batch_only(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        batcher = live.app.state.repository.get("tiny").batcher
        run = batcher._run
        batcher._run = lambda _: 1 / 0
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (500, "inference-failed")
        assert "ZeroDivisionError" not in answer.text
        batcher._run = run
        assert live.score(picture()).status_code == 200


def test_a_fault_of_our_own_is_a_problem_with_its_request_id(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.app.state.repository.get = None
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (500, "internal-error")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_json_logs_carry_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure_logs(Settings(log_format="json"))
        with structlog.contextvars.bound_contextvars(request_id="abc"):
            structlog.stdlib.get_logger("service.test").info("hello", n=1)
            logging.getLogger("uvicorn.error").error("theirs %d", 2)
        ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
        assert (ours["event"], ours["n"], ours["request_id"], ours["level"]) == ("hello", 1, "abc", "info")
        assert (theirs["event"], theirs["request_id"], theirs["logger"]) == ("theirs 2", "abc", "uvicorn.error")
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.reset_defaults()
