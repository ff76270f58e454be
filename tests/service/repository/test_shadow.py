"""Shadow versions: they are counted, and no answer differs, waits or fails because of them."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Live, Serve
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


def slow(live: Live, version: str, seconds: float) -> None:
    """Let a version's engine take that long for each batch."""
    engine = live.engine("tiny", version)

    def slowly(items: Sequence[Any], *, exclusive: bool) -> Mapping[str, Any]:
        time.sleep(seconds)
        return engine.run_unreplaced(items, exclusive=exclusive)

    engine.replacement = slowly


def total(live: Live, name: str, version: str, **labels: str) -> float:
    return value(live.client, name, model="tiny", version=version, **labels)


def test_shadows_never_change_an_answer(models: Path, shadowed: Live, tmp_path: Path, serve: Serve) -> None:
    shutil.copytree(models / "tiny" / "1", tmp_path / "tiny" / "1")
    requests: list[dict[str, Any]] = [
        {"inputs": [RED, GREY, {"image": "%"}, "text"], "scores": "all", "alpha": 0.2},
        {"inputs": [GREY], "threshold": 0.5},
        {"inputs": [{"image": "%"}]},
    ]
    with serve(tmp_path) as alone:
        for request in requests:
            answers = [live.score(json=request).json() for live in (shadowed, alone)]
            for answer in answers:
                answer.pop("request_id", None)
            assert answers[0] == answers[1]


def test_what_a_shadow_scores_is_counted_as_its_own(shadowed: Live) -> None:
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
    # What it cannot take is no input of its own, and told.
    assert total(shadowed, "ood_inputs_total", "4") == 0
    assert total(shadowed, "ood_shadow_dropped_total", "4", reason="failed") == 3


def test_a_request_that_names_a_version_is_not_shadowed(shadowed: Live) -> None:
    shadowed.client.post("/v1/models/tiny/versions/1/score", json={"inputs": [RED]})
    shadowed.score(json={"inputs": [RED]})
    until(lambda: total(shadowed, "ood_inputs_total", "2") == 1)
    assert total(shadowed, "ood_inputs_total", "1") == 2


def test_the_options_of_a_request_hold_for_its_shadows(shadowed: Live) -> None:
    shadowed.score(json={"inputs": [GREY], "alpha": 0.3, "scores": ["energy"]})
    until(lambda: total(shadowed, "ood_inputs_total", "3") == 1)
    assert total(shadowed, "ood_flagged_inputs_total", "3", score="energy") == total(
        shadowed, "ood_flagged_inputs_total", "1", score="energy"
    )
    assert total(shadowed, "ood_p_value_count", "3", score="msp") == 0


def test_a_slow_shadow_delays_no_answer_and_drops_what_its_queue_cannot_take(models: Path, serve: Serve) -> None:
    with serve(models, queue_size=4, max_inputs=4, max_batch=1) as live:
        slow(live, "3", 0.3)
        began = time.monotonic()
        for _ in range(10):
            assert live.score(json={"inputs": [RED, RED]}).status_code == 200
        assert time.monotonic() - began < 2
        until(lambda: total(live, "ood_shadow_dropped_total", "3", reason="overloaded") > 0)


def test_a_shadow_gives_way_where_the_queue_that_answers_is_half_full(models: Path, serve: Serve) -> None:
    with serve(models, queue_size=4, max_inputs=4) as live:
        batcher = live.app.state.repository.get("tiny", "1").batcher
        with batcher.reserve(3), live.app.state.repository.get("tiny", "2").batcher.reserve(4):
            assert live.score(json={"inputs": [RED]}).status_code == 200
            # The fullest queue that answers: a shadow's own may be full.
            assert value(live.client, "ood_queue_depth", model="tiny") == 3
        assert total(live, "ood_shadow_dropped_total", "2", reason="overloaded") == 1


def test_a_shadow_that_is_late_or_fails_is_counted_as_that(shadowed: Live) -> None:
    def fail(items: Sequence[Any], *, exclusive: bool) -> Mapping[str, Any]:
        raise RuntimeError("out of order")

    shadowed.engine("tiny", "2").replacement = fail
    assert shadowed.score(json={"inputs": [RED, RED]}).status_code == 200
    until(lambda: total(shadowed, "ood_shadow_dropped_total", "2", reason="failed") == 2)
    slow(shadowed, "3", 0.4)
    for _ in range(2):
        assert shadowed.score(json={"inputs": [RED], "timeout_ms": 200}).status_code == 200
    until(lambda: total(shadowed, "ood_shadow_dropped_total", "3", reason="deadline-passed") == 1)


def test_a_shadow_of_texts_with_the_same_tokenizer_scores_what_was_encoded(tmp_path: Path, serve: Serve) -> None:
    make_tiny_text_bundle(tmp_path)
    make_tiny_text_bundle(tmp_path, version="2")
    (tmp_path / "traffic.yaml").write_text("topics: {shadow: [2]}")
    with serve(tmp_path) as live:
        live.client.post("/v1/models/topics/score", json={"inputs": ["the team won", "a goal"]})
        until(lambda: value(live.client, "ood_inputs_total", model="topics", version="2") == 2)
        assert value(live.client, "ood_preprocess_seconds_count", model="topics") == 2


def test_the_service_ends_while_a_shadow_is_at_work(models: Path, serve: Serve) -> None:
    with serve(models) as live:
        slow(live, "3", 1)
        live.score(json={"inputs": [RED]})
