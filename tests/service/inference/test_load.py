"""Concurrent requests: full queues, deadlines, disconnects, engine failures."""

import base64
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bundle import load_bundle, seal_bundle
from service.inputs.modality import Array
from tests.service.conftest import Serve
from tests.service.support.engine_gate import EngineGate, post_in_background, replace_engine
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until


def test_a_full_queue_answers_503_with_retry_after_while_the_accepted_are_scored(
    repository: Path, serve: Serve
) -> None:
    with serve(repository, queue_size=2, max_inputs=2) as live:
        gate = EngineGate(live)
        first, first_answers = post_in_background(live)
        gate.until_batches(1)
        waiting = [post_in_background(live) for _ in range(2)]
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 2)
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        for thread, answers in [(first, first_answers), *waiting]:
            thread.join()
            assert answers[0].status_code == 200
        assert gate.batches == [1, 2]
        assert value(live.client, "ood_rejected_total", model="tiny", reason="overloaded") == 1
        assert value(live.client, "ood_queue_depth", model="tiny") == 0


def test_a_request_that_would_wait_past_its_deadline_is_rejected_at_once(repository: Path, serve: Serve) -> None:
    with serve(repository, seconds_per_input=0.5) as live:
        gate = EngineGate(live)
        first, _ = post_in_background(live)
        gate.until_batches(1)
        waiting = [post_in_background(live) for _ in range(2)]
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 2)
        answer = live.score(picture(), params={"timeout_ms": 1000})
        # At its deadline the answer would be 504.
        assert (answer.status_code, answer.json()["type"]) == (503, "overloaded")
        assert "the queue is 1.0 s long" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        for thread, answers in [(first, []), *waiting]:
            thread.join()
            assert all(answer.status_code == 200 for answer in answers)


def test_the_total_size_of_bodies_in_progress_is_bounded(repository: Path, serve: Serve) -> None:
    with serve(repository, max_body_bytes=100_000, max_pending_bytes=150_000) as live:
        gate = EngineGate(live)
        first, _ = post_in_background(live, content=picture() + bytes(99_000))
        gate.until_batches(1)
        answer = live.score(picture() + bytes(60_000))
        assert (answer.status_code, answer.json()["type"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        second, answers = post_in_background(live)
        gate.open()
        first.join()
        second.join()
        assert answers[0].status_code == 200
        until(lambda: live.score(picture() + bytes(60_000)).status_code == 200)


def test_a_slow_body_is_given_up_for_a_faster_one(repository: Path, serve: Serve) -> None:
    with serve(repository, max_body_bytes=100_000, max_pending_bytes=150_000, receive_timeout_seconds=600) as live:
        with socket.create_connection(("127.0.0.1", live.port), timeout=120) as slow:
            head = b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            slow.sendall(head + b"Content-Length: 100000\r\n\r\n" + bytes(99_000))
            # At first its pace is unknown, and newcomers are refused.
            until(lambda: live.score(picture() + bytes(60_000)).status_code == 200)
            response = slow.recv(65_536)
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in response
        # The memory of both is free again.
        assert live.score(picture() + bytes(99_000)).status_code == 200


def test_a_request_past_its_deadline_is_504_and_never_computed(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        gate = EngineGate(live)
        first, _ = post_in_background(live)
        gate.until_batches(1)
        started = time.monotonic()
        answer = live.score(picture(), params={"timeout_ms": "50"})
        assert (answer.status_code, answer.json()["type"]) == (504, "deadline-passed")
        assert 0.05 <= time.monotonic() - started < 10
        assert value(live.client, "ood_queue_depth", model="tiny") == 0
        gate.open()
        first.join()
        assert gate.batches == [1]
        assert value(live.client, "ood_rejected_total", model="tiny", reason="deadline-passed") == 1


def test_requests_of_the_open_inference_protocol_have_the_same_queue_and_deadlines(
    repository: Path, serve: Serve
) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(picture()).decode()]}
    with serve(repository, queue_size=1, max_inputs=1) as live:
        gate = EngineGate(live)
        first, _ = post_in_background(live)
        gate.until_batches(1)
        body = {"inputs": [tensor], "parameters": {"timeout_ms": 50}}
        answer = live.client.post("/v2/models/tiny/infer", json=body)
        assert (answer.status_code, answer.json()["error"].split(":")[0]) == (504, "deadline-passed")
        waiting, _ = post_in_background(live)
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
        answer = live.client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
        assert (answer.status_code, answer.json()["error"].split(":")[0]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        first.join()
        waiting.join()
        assert gate.batches == [1, 1]
        for reason in ("deadline-passed", "overloaded"):
            assert value(live.client, "ood_rejected_total", model="tiny", reason=reason) == 1


def test_a_client_that_disconnects_frees_its_slot(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        gate = EngineGate(live)
        first, _ = post_in_background(live)
        gate.until_batches(1)
        body = picture()
        with socket.create_connection(("127.0.0.1", live.port)) as client:
            head = f"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 0)
        gate.open()
        first.join()
        assert gate.batches == [1]
        until(lambda: value(live.client, "ood_rejected_total", model="tiny", reason="client-gone") == 1)


def test_an_engine_failure_is_a_typed_500_for_its_batch_only(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:

        def fail(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            raise ZeroDivisionError

        run = replace_engine(live, fail)
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (500, "inference-failed")
        assert "ZeroDivisionError" not in answer.text
        replace_engine(live, run)
        assert live.score(picture()).status_code == 200


def test_a_score_that_is_not_a_number_fails_only_its_input(tmp_path: Path, serve: Serve) -> None:
    folder = make_tiny_bundle(tmp_path)
    fields = load_bundle(folder).manifest.model_dump(exclude={"files"})
    model = onnx.load(folder / "model.onnx")
    (msp,) = [node for node in model.graph.node if node.output[0] == "msp"]
    msp.output[0] = "msp_alone"
    # 0 * log(1 - probability of "blue") is NaN only for the bluest of images, and 0 for others.
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "third"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.99, np.float32), "almost_one"))
    model.graph.node.extend([
        helper.make_node("Gather", ["softmax", "third"], ["blue"], axis=1),
        helper.make_node("Sub", ["almost_one", "blue"], ["room"]),
        helper.make_node("Log", ["room"], ["log_room"]),
        helper.make_node("Mul", ["log_room", "zero"], ["nothing_or_nan"]),
        helper.make_node("Add", ["msp_alone", "nothing_or_nan"], ["msp"]),
    ])  # fmt: skip
    onnx.save(model, folder / "model.onnx")
    seal_bundle(folder, fields)
    with serve(tmp_path) as live:
        images = [{"image": base64.b64encode(picture(colour)).decode()} for colour in ("red", "blue", "lime")]
        answer = live.score(json={"inputs": images})
        assert "NaN" not in answer.text
        assert answer.json()["results"][1]["error"]["type"] == "non-finite-score"
        assert [result["index"] for result in answer.json()["results"] if "error" not in result] == [0, 2]
        single = live.score(picture("blue"))
        assert (single.status_code, single.json()["type"]) == (422, "non-finite-score")


def test_each_of_many_concurrent_requests_gets_its_own_answer(repository: Path, serve: Serve) -> None:
    labels = {"red": "red", "lime": "green", "blue": "blue"}
    with serve(repository) as live, ThreadPoolExecutor(12) as pool:
        colours = [list(labels)[index % 3] for index in range(240)]
        answers = list(pool.map(lambda colour: live.score(picture(colour)).json(), colours))
        predicted = [answer["results"][0]["prediction"]["label"] for answer in answers]
        assert predicted == [labels[colour] for colour in colours]
        tiny = {"model": "tiny", "version": "2"}
        assert value(live.client, "ood_inputs_total", **tiny) == 240
        assert value(live.client, "ood_batch_size_sum", model="tiny") == 240


def test_an_unexpected_error_is_a_problem_with_its_request_id(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.app.state.repository.get = None
        answer = live.score(picture())
        assert (answer.status_code, answer.json()["type"]) == (500, "internal-error")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
