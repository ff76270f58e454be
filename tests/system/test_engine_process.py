"""`OOD_ENGINE_PROCESS`: one process computes for all workers; answers, limits, restarts and the end."""

import json
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.service.support.edited_graph import edit_graph
from tests.service.support.exposition import samples, value
from tests.service.support.pictures import encoded, picture
from tests.service.support.stalling_graph import WHITE, search_forever
from tests.support.tiny_bundle import make_tiny_bundle, tiny_images
from tests.support.tiny_density_bundle import make_tiny_density_bundle
from tests.support.tiny_text_bundle import SAMPLE, make_tiny_text_bundle
from tests.support.waiting import until
from tests.system.support.accepted_requests import assert_every_accepted_request_was_answered
from tests.system.support.scoring_clients import PNG, SCORE_PATH, ScoringClients, score
from tests.system.support.service_process import ServiceProcess, Start, on_new_connection, run_to_exit
from tests.system.support.worker_processes import (
    all_ready,
    assert_service_ends_without_supervisor,
    engine_process,
    front_ends,
    ready,
)

TINY = {"model": "tiny", "version": "1"}
KILLS = 4


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


def start_with_engine_process(start: Start, models: Path, *flags: str) -> ServiceProcess:
    """A service of two ready front ends and an engine process."""
    service = start(models, "--workers", "2", "--engine-process", "on", "--log-format", "json", *flags)
    until(lambda: all_ready(service))
    return service


@pytest.fixture
def service(models: Path, start: Start) -> ServiceProcess:
    return start_with_engine_process(start, models)


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """The process computes nothing within the block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of all kinds: their paths and further arguments of `httpx.Client.post`."""
    images = [{"image": encoded(picture(colour))} for colour in ("red", "white", "navy")]
    texts = [{"text": SAMPLE}, {"text": "senate"}, {"text": "the atom " * 20}]
    yield SCORE_PATH, {"content": picture(), "headers": PNG}
    yield SCORE_PATH, {"json": {"inputs": [*images, {"image": "%"}], "scores": "all"}}
    yield "/v1/models/greyness/score", {"json": {"inputs": images, "explain": True}}
    yield "/v1/models/explained/score", {"json": {"inputs": images, "explain": True}}
    yield "/v1/models/topics/score", {"json": {"inputs": texts, "scores": "all"}}
    yield "/v1/models/topics/score", {"json": {"inputs": texts, "explain": True}}
    yield "/v1/models/words/score", {"json": {"inputs": texts, "explain": True}}
    pixels = tiny_images(64).tobytes()
    tensor = {"name": "images", "shape": [64, 8, 8, 3], "datatype": "UINT8"}
    inference = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(pixels)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(inference).encode()
    yield (
        "/v2/models/tiny/infer",
        {"content": head + pixels, "headers": {"Inference-Header-Content-Length": str(len(head))}},
    )


def answers(service: ServiceProcess) -> list[bytes]:
    bodies = []
    for path, request in requests():
        response = on_new_connection(service, lambda client, path=path, request=request: client.post(path, **request))
        assert response.status_code == 200, response.text
        bodies.append(response.content)
    return bodies


def counts(service: ServiceProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The metrics of inputs and of models that do not depend on time, on the process, or on the size of batches."""
    prefixes = ("ood_inputs", "ood_flagged", "ood_anomaly", "ood_p_value", "ood_truncated", "ood_input_errors")
    prefixes += ("ood_batch_size_sum", "ood_queue_seconds_count", "ood_preprocess_seconds_count", "ood_threshold")
    prefixes += ("ood_drift", "ood_model_info", "ood_alpha", "ood_queue_capacity", "ood_rejected", "ood_engine")
    metrics = on_new_connection(service, samples)
    return {key: number for key, number in metrics.items() if key[0].startswith(prefixes) and "created" not in key[0]}


def test_answers_and_metrics_are_those_of_a_single_process(tmp_path: Path, start: Start) -> None:
    models = tmp_path / "models"
    make_tiny_bundle(models)
    make_tiny_density_bundle(models)
    make_tiny_bundle(models, name="explained", evidence=True, neighbours=True)
    make_tiny_text_bundle(models)
    make_tiny_text_bundle(models, name="words", task="language-model", sample=None)
    # Kernels for other sizes of batches round differently, and the size depends on the load.
    single = start(models, "--max-batch", "1")
    # One front end: the evidence of drift of several is combined, as that of workers.
    several = start(models, "--max-batch", "1", "--workers", "1", "--engine-process", "on")
    assert answers(several) == answers(single)
    assert counts(several) == counts(single)
    assert several.end() == 0


def test_front_ends_killed_at_random_lose_no_request_of_clients_that_try_again(
    service: ServiceProcess,
) -> None:
    choose = random.Random(0)
    with ScoringClients(service.address, 8) as clients:
        for number in range(1, KILLS + 1):
            clients.until_more(20)
            choose.choice(front_ends(service)).kill()
            until(lambda number=number: len(service.log_entries("worker died")) == number)
            until(lambda: all_ready(service))
    # A client has one request at a time, and sends it again after an error: all were answered in the end.
    assert clients.outcomes.keys() - {200} == {type(error).__name__ for error in clients.failures}
    assert len(clients.failures) <= 8 * KILLS
    assert value(service.client, "ood_queue_depth", model="tiny") == 0
    assert service.end() == 0


def test_after_the_death_of_the_engine_process_held_requests_get_503_and_front_ends_stay(
    service: ServiceProcess,
) -> None:
    before = front_ends(service)
    with ScoringClients(service.address, 4, outcome=status_and_type) as clients:
        engine_process(service).kill()
        until(lambda: bool(service.log_entries("engine process died")))
        until(lambda: all_ready(service))
        clients.until_more(20)
    assert not clients.failures
    assert clients.outcomes.keys() <= {(200, None), (503, "engine-unavailable")}
    assert front_ends(service) == before
    assert service.log_entries("engine process died")[0]["reason"] == "ended by SIGKILL"
    assert value(service.client, "ood_queue_depth", model="tiny") == 0
    rejected = clients.outcomes[503, "engine-unavailable"]
    assert value(service.client, "ood_rejected_total", model="tiny", reason="engine-unavailable") == rejected
    assert service.end() == 0


def status_and_type(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, None if response.is_success else response.json()["type"].rsplit("/", 1)[-1]


def test_a_request_that_the_engine_process_holds_when_it_ends_is_answered_503(service: ServiceProcess) -> None:
    engine = engine_process(service)
    responses: list[httpx.Response] = []
    with stopped(engine):
        thread = threading.Thread(target=lambda: responses.append(on_new_connection(service, score)))
        thread.start()
        until(lambda: value(service.client, "ood_queue_depth", model="tiny") == 1)
        assert ready(service.client)
        engine.kill()
    thread.join()
    assert status_and_type(responses[0]) == (503, "engine-unavailable")
    assert responses[0].headers["retry-after"] == "1"
    until(lambda: all_ready(service))
    assert on_new_connection(service, score).status_code == 200
    assert service.end() == 0


def test_all_front_ends_share_the_limit_of_the_queue(models: Path, start: Start) -> None:
    service = start_with_engine_process(start, models, "--queue-size", "4", "--max-inputs", "4")
    responses: list[int] = []

    def send() -> None:
        responses.append(on_new_connection(service, score).status_code)

    threads = [threading.Thread(target=send) for _ in range(12)]
    with stopped(engine_process(service)):
        for thread in threads:
            thread.start()
        until(lambda: len(responses) == 8)
        assert responses == [503] * 8
        assert value(service.client, "ood_queue_depth", model="tiny") == 4
    for thread in threads:
        thread.join()
    assert sorted(responses) == [200] * 4 + [503] * 8
    served = {entry["worker"] for entry in service.log_entries("request") if entry["path"] == SCORE_PATH}
    assert served == {0, 1}
    assert service.end() == 0


def test_cancelled_requests_leave_the_queue(service: ServiceProcess) -> None:
    with stopped(engine_process(service)):
        client = httpx.Client(base_url=service.address, timeout=0.2)
        with pytest.raises(httpx.ReadTimeout):
            score(client)
        client.close()
    until(lambda: value(service.client, "ood_queue_depth", model="tiny") == 0)
    assert on_new_connection(service, score).status_code == 200
    assert service.end() == 0


def test_sigterm_to_every_process_answers_every_accepted_request(service: ServiceProcess) -> None:
    clients = ScoringClients(service.address, 8, reconnect=False)
    for process in (*psutil.Process(service.process.pid).children(), service.process):
        process.send_signal(signal.SIGTERM)
    clients.join()
    assert service.wait() == 0
    assert_every_accepted_request_was_answered(service, clients)
    assert not service.log_entries("worker died")
    assert not service.log_entries("engine process died")


def test_an_engine_process_that_does_not_end_is_killed_after_the_workers_have_ended(service: ServiceProcess) -> None:
    engine_process(service).suspend()
    assert service.end() == 0


def test_a_second_signal_kills_an_engine_process_that_does_not_end(service: ServiceProcess) -> None:
    engine, workers = engine_process(service), front_ends(service)
    engine.suspend()
    service.process.send_signal(signal.SIGTERM)
    psutil.wait_procs(workers)
    assert service.end() == 0
    assert not engine.is_running()


def test_without_the_supervisor_accepted_requests_are_answered_and_all_processes_end(service: ServiceProcess) -> None:
    assert_service_ends_without_supervisor(service)


def test_a_new_version_is_served_by_every_front_end_and_the_old_engine_is_closed(models: Path, start: Start) -> None:
    service = start_with_engine_process(start, models, "--reload", "poll", "--reload-seconds", "0.1")
    with ScoringClients(service.address, 4) as clients:
        make_tiny_bundle(models.parent, version="2", seed=1).rename(models / "tiny" / "2")
        until(lambda: on_new_connection(service, loaded_versions) == 4)
        assert {on_new_connection(service, lambda it: score(it).json()["version"]) for _ in range(10)} == {"2"}
        (models / "tiny" / "1").rename(models.parent / "removed")
        until(lambda: [entry["version"] for entry in service.log_entries("engine closed")] == ["1"])
    assert clients.outcomes.keys() == {200}
    assert service.end() == 0


def loaded_versions(client: httpx.Client) -> float:
    return value(client, "ood_reloads_total", model="tiny", result="loaded")


def test_canaries_and_shadows_work(models: Path, start: Start) -> None:
    make_tiny_bundle(models, version="2", seed=1)
    make_tiny_bundle(models, version="3", seed=2)
    (models / "traffic.yaml").write_text("tiny: {serve: 1, canary: {version: 2, percent: 50}, shadow: [3]}")
    service = start_with_engine_process(start, models)
    versions = [on_new_connection(service, lambda client: score(client).json()["version"]) for _ in range(30)]
    assert set(versions) == {"1", "2"}

    def scored(version: str) -> float:
        return float(value(service.client, "ood_inputs_total", model="tiny", version=version))

    until(lambda: scored("3") == len(versions))
    assert [scored("1"), scored("2")] == [versions.count("1"), versions.count("2")]
    assert service.end() == 0


def test_a_stalled_engine_makes_the_front_ends_not_ready_and_the_engine_process_is_replaced(
    models: Path, start: Start
) -> None:
    edit_graph(models / "tiny" / "1", search_forever)
    flags = ("--stall-seconds", "1", "--stall-exit-seconds", "4", "--max-batch", "1")
    service = start_with_engine_process(start, models, *flags)
    before = front_ends(service)
    responses: list[httpx.Response] = []

    def send() -> None:
        post = lambda client: client.post(SCORE_PATH, content=WHITE, headers=PNG)  # noqa: E731
        responses.append(on_new_connection(service, post))

    thread = threading.Thread(target=send)
    thread.start()
    until(lambda: not ready(service.client))
    answer = service.client.get("/readyz").json()
    assert answer["status"] == "stalled"
    assert "has not finished a batch" in answer["reason"] or "restarted" in answer["reason"]
    thread.join()
    assert status_and_type(responses[0]) == (503, "engine-unavailable")
    until(lambda: all_ready(service))
    assert service.log_entries("engine process died")[0]["reason"] == "ended with exit code 70"
    assert value(service.client, "ood_engine_stalls_total", **TINY) == 1
    assert front_ends(service) == before
    assert on_new_connection(service, score).status_code == 200
    assert service.end() == 0


def test_front_ends_whose_bundle_was_replaced_on_the_disk_start_again_with_the_engine_process(
    models: Path, start: Start
) -> None:
    service = start_with_engine_process(start, models)
    before = front_ends(service)
    (models / "tiny" / "1").rename(models.parent / "first")
    make_tiny_bundle(models, labels=("rouge", "vert", "bleu"))
    engine_process(service).kill()
    until(lambda: len(service.log_entries("worker died")) == 2)
    until(lambda: all_ready(service))
    assert set(front_ends(service)).isdisjoint(before)
    assert on_new_connection(service, score).json()["results"][0]["prediction"]["label"] == "rouge"
    assert service.end() == 0


def test_the_metrics_of_processes_include_the_engine_process(service: ServiceProcess) -> None:
    reported = value(service.client, "process_open_fds")
    children = (*front_ends(service), engine_process(service))
    files = [child.num_fds() for child in children]
    # Connections come and go; without a process a third would be missing.
    assert reported == pytest.approx(sum(files), rel=0.15)
    assert service.end() == 0


def test_a_missing_provider_fails_the_start_with_its_reason_once(models: Path) -> None:
    result = run_to_exit("--models", str(models), "--workers", "2", "--engine-process", "on", "--provider", "cuda")
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("OOD_PROVIDER=cuda needs CUDAExecutionProvider") == 1
    assert "Traceback" not in result.stderr


def test_inputs_are_scored_alike_in_large_requests_of_several_clients(service: ServiceProcess) -> None:
    images = tiny_images(200)
    pictures = [{"image": encoded(_png(image))} for image in images]

    def send(client: httpx.Client) -> list[float]:
        results = client.post(SCORE_PATH, json={"inputs": pictures}).json()["results"]
        return [result["scores"]["msp"]["value"] for result in results]

    expected = on_new_connection(service, send)
    scores: list[list[float]] = []
    threads = [threading.Thread(target=lambda: scores.append(on_new_connection(service, send))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scores) == 4
    for values in scores:
        assert np.allclose(values, expected, rtol=1e-5)
    assert service.end() == 0


def _png(image: np.ndarray[Any, Any]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
