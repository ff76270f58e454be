"""Shadow versions: their scores are counted, and no answer differs, waits or fails because of them."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.inputs.modality import Array
from tests.service.conftest import Live, Serve
from tests.service.support.engine_gate import EngineGate, replace_engine
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.support.waiting import until

RED, GREY = {"image": encoded(picture("red"))}, {"image": encoded(picture("gray"))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with the shadows 2 (of another size), 3 (flags nothing: alpha is too small) and 4 (takes texts)."""
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    make_tiny_bundle(root, version="2", size=16)
    make_tiny_bundle(root, version="3", alpha=0.0001)
    make_tiny_text_bundle(root, name="tiny", version="4")
    (root / "traffic.yaml").write_text("tiny: {shadow: [2, 3, 4]}")
    return root


@pytest.fixture
def shadowed(models: Path, serve: Serve) -> Iterator[Live]:
    with serve(models) as live:
        yield live


def total(live: Live, name: str, version: str, **labels: str) -> float:
    return value(live.client, name, model="tiny", version=version, **labels)


def is_listening(live: Live) -> bool:
    try:
        socket.create_connection(("127.0.0.1", live.port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


def test_shadows_never_change_an_answer(models: Path, shadowed: Live, tmp_path: Path, serve: Serve) -> None:
    shutil.copytree(models / "tiny" / "1", tmp_path / "tiny" / "1")
    requests: list[dict[str, Any]] = [
        {"inputs": [RED, GREY, {"image": "%"}, "text"], "scores": "all", "alpha": 0.2},
        {"inputs": [GREY], "threshold": 0.5},
        {"inputs": [{"image": "%"}]},
    ]
    with serve(tmp_path) as unshadowed:
        for request in requests:
            answers = [live.score(json=request).json() for live in (shadowed, unshadowed)]
            for answer in answers:
                answer.pop("request_id", None)
            assert answers[0] == answers[1]


def test_inputs_that_a_shadow_scores_are_counted_for_the_shadow(shadowed: Live) -> None:
    shadowed.score(json={"inputs": [RED, GREY, GREY, {"image": "%"}], "scores": ["msp", "energy"]})
    for version in ("2", "3"):
        until(lambda version=version: total(shadowed, "ood_inputs_total", version) == 3)
        assert total(shadowed, "ood_p_value_count", version, score="msp") == 3
        assert total(shadowed, "ood_anomaly_score_count", version, score="energy") == 3
    assert total(shadowed, "ood_flagged_inputs_total", "2", score="msp") == 2
    assert total(shadowed, "ood_shadow_disagreements_total", "2", score="msp") == 0
    assert total(shadowed, "ood_flagged_inputs_total", "3", score="msp") == 0
    assert total(shadowed, "ood_shadow_disagreements_total", "3", score="msp") == 2
    assert total(shadowed, "ood_inputs_total", "1") == 3
    assert total(shadowed, "ood_traffic_share", "2", role="shadow") == 1
    # Inputs of another modality are not scored, but counted as dropped.
    assert total(shadowed, "ood_inputs_total", "4") == 0
    assert total(shadowed, "ood_shadow_dropped_total", "4", reason="failed") == 3


def test_a_request_that_names_a_version_is_not_shadowed(shadowed: Live) -> None:
    shadowed.client.post("/v1/models/tiny/versions/1/score", json={"inputs": [RED]})
    shadowed.score(json={"inputs": [RED]})
    until(lambda: total(shadowed, "ood_inputs_total", "2") == 1)
    assert total(shadowed, "ood_inputs_total", "1") == 2


def test_the_options_of_a_request_apply_to_its_shadows(shadowed: Live) -> None:
    shadowed.score(json={"inputs": [GREY], "alpha": 0.3, "scores": ["energy"]})
    until(lambda: total(shadowed, "ood_inputs_total", "3") == 1)
    assert total(shadowed, "ood_flagged_inputs_total", "3", score="energy") == total(
        shadowed, "ood_flagged_inputs_total", "1", score="energy"
    )
    assert total(shadowed, "ood_p_value_count", "3", score="msp") == 0


def test_a_blocked_shadow_delays_no_answer_and_drops_inputs_that_its_queue_cannot_take(
    models: Path, serve: Serve
) -> None:
    with serve(models, queue_size=4, max_inputs=4, max_batch=1) as live:
        gate = EngineGate(live, version="3")
        for _ in range(10):
            assert live.score(json={"inputs": [RED, RED]}).status_code == 200
        until(lambda: total(live, "ood_shadow_dropped_total", "3", reason="overloaded") > 0)
        gate.open()


def test_a_shadow_drops_inputs_while_the_answering_queue_is_half_full(models: Path, serve: Serve) -> None:
    with serve(models, queue_size=4, max_inputs=4) as live:
        batcher = live.app.state.repository.get("tiny", "1").batcher
        with batcher.reserve(3), live.app.state.repository.get("tiny", "2").batcher.reserve(4):
            assert live.score(json={"inputs": [RED]}).status_code == 200
            # The gauge reports the fullest queue of a version that answers; that of a shadow may be full.
            assert value(live.client, "ood_queue_depth", model="tiny") == 3
        assert total(live, "ood_shadow_dropped_total", "2", reason="overloaded") == 1


def test_inputs_of_a_shadow_whose_engine_fails_are_counted_as_failed(shadowed: Live) -> None:
    def fail(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        raise RuntimeError("out of order")

    replace_engine(shadowed, fail, version="2")
    assert shadowed.score(json={"inputs": [RED, RED]}).status_code == 200
    until(lambda: total(shadowed, "ood_shadow_dropped_total", "2", reason="failed") == 2)


def test_inputs_that_wait_for_a_shadow_beyond_their_deadline_are_counted_as_such(shadowed: Live) -> None:
    gate = EngineGate(shadowed, version="3")
    batcher = shadowed.app.state.repository.get("tiny", "3").batcher
    timeout_seconds = 1.0
    for waiting in range(2):
        request = {"inputs": [RED], "timeout_ms": round(timeout_seconds * 1000)}
        assert shadowed.score(json=request).status_code == 200
        gate.until_batches(1)
        until(lambda waiting=waiting: batcher.depth == waiting)
    # Until the deadline of the second input has passed, however fast the machine is.
    time.sleep(timeout_seconds)
    gate.open()
    until(lambda: total(shadowed, "ood_shadow_dropped_total", "3", reason="deadline-passed") == 1)
    until(lambda: total(shadowed, "ood_inputs_total", "3") == 1)


def test_a_shadow_of_texts_with_the_same_tokenizer_scores_what_was_encoded(tmp_path: Path, serve: Serve) -> None:
    make_tiny_text_bundle(tmp_path)
    make_tiny_text_bundle(tmp_path, version="2")
    (tmp_path / "traffic.yaml").write_text("topics: {shadow: [2]}")
    with serve(tmp_path) as live:
        live.client.post("/v1/models/topics/score", json={"inputs": ["the team won", "a goal"]})
        until(lambda: value(live.client, "ood_inputs_total", model="topics", version="2") == 2)
        assert value(live.client, "ood_preprocess_seconds_count", model="topics") == 2


def test_the_service_ends_while_a_shadow_is_scoring(models: Path, serve: Serve) -> None:
    with serve(models) as live:
        gate = EngineGate(live, version="3")
        live.score(json={"inputs": [RED]})
        gate.until_batches(1)

        def open_after_the_end_began() -> None:
            until(lambda: not is_listening(live))
            gate.open()

        opener = threading.Thread(target=open_after_the_end_began)
        opener.start()
    opener.join()


def test_a_shadow_that_prepares_inputs_itself_holds_them_within_the_budget(models: Path, serve: Serve) -> None:
    large = picture() + bytes(99_000)
    with serve(models, max_body_bytes=100_000, max_pending_bytes=250_000) as live:
        own = EngineGate(live, version="2")
        assert live.score(large).status_code == 200
        own.until_batches(1)
        # The next body and its copy do not fit beside the copy that version 2 still holds.
        assert live.score(large).status_code == 200
        until(lambda: total(live, "ood_shadow_dropped_total", "2", reason="overloaded") == 1)
        # Version 3 scores what was prepared for the answer, so it holds no input.
        until(lambda: total(live, "ood_inputs_total", "3") == 2)
        own.open()
        until(lambda: total(live, "ood_inputs_total", "2") == 1)
        assert live.score(large).status_code == 200
        until(lambda: total(live, "ood_inputs_total", "2") == 2)


def test_the_inputs_of_a_shadow_are_dropped_when_the_memory_is_used_up(models: Path, serve: Serve) -> None:
    large = picture() + bytes(99_000)
    with serve(models, max_body_bytes=100_000, max_pending_bytes=100_000) as live:
        # The body itself is held until its response, so there is no room for the copy of a shadow.
        assert live.score(large).status_code == 200
        until(lambda: total(live, "ood_inputs_total", "3") == 1)
        assert total(live, "ood_shadow_dropped_total", "2", reason="overloaded") == 1
