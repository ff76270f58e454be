"""Explanations of text classifiers over HTTP: the change of the anomaly without each token."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer, processors

from bundle import TextEncoder
from service.scoring.token_changes import LeaveOneOut
from tests.service.conftest import Live, Serve, running_service
from tests.service.support.answers import problem
from tests.service.support.engine_gate import EngineGate
from tests.service.support.texts import score
from tests.support.tiny_text_bundle import make_tiny_text_bundle, tiny_tokenizer
from tests.support.waiting import until

EXPLAIN = {"explain": "true"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A classifier of texts of at most 20 tokens; 8 inputs per request, 12 in the queue."""
    root = tmp_path_factory.mktemp("topics")
    make_tiny_text_bundle(root, max_tokens=20)
    with running_service(root, max_inputs=8, queue_size=12) as service:
        yield service


def explanation(answer: httpx.Response, index: int = 0) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][index]["explanation"]


def anomaly(live: Live, text: str, name: str) -> float:
    (result,) = score(live, text, params={"scores": name}).json()["results"]
    return float(result["scores"][name]["anomaly"])


@pytest.mark.parametrize("name", ["msp", "energy"])
def test_the_change_of_a_token_is_the_anomaly_with_it_minus_the_anomaly_without_it(live: Live, name: str) -> None:
    text = "the team of law"
    shown = explanation(score(live, text, params={**EXPLAIN, "scores": f"{name},entropy"}))
    assert (shown["kind"], shown["score"]) == ("token_changes", name)
    words = text.split()
    assert [token["token"] for token in shown["tokens"]] == words
    for index, token in enumerate(shown["tokens"]):
        without = " ".join(words[:index] + words[index + 1 :])
        assert token["change"] == pytest.approx(anomaly(live, text, name) - anomaly(live, without, name), abs=1e-5)


def test_words_of_another_topic_raise_the_anomaly_and_words_of_the_topic_lower_it(live: Live) -> None:
    tokens = explanation(score(live, "ball goal team law", params=EXPLAIN))["tokens"]
    assert [token["change"] > 0 for token in tokens] == [False, False, False, True]


def test_an_answer_has_the_same_scores_with_and_without_an_explanation(live: Live) -> None:
    (plain,) = score(live, "ball goal team law").json()["results"]
    (explained,) = score(live, "ball goal team law", params=EXPLAIN).json()["results"]
    assert plain == {key: value for key, value in explained.items() if key != "explanation"}


def test_the_only_token_of_a_text_is_not_left_out(live: Live) -> None:
    assert explanation(score(live, "ball", params=EXPLAIN))["tokens"] == [{"token": "ball", "change": None}]


def test_a_request_computes_at_most_as_many_inputs_as_it_may_have(live: Live) -> None:
    tokens = explanation(score(live, " ".join(["ball"] * 10), params=EXPLAIN))["tokens"]
    assert [token["change"] is None for token in tokens] == [False] * 7 + [True] * 3


def test_the_texts_of_a_request_are_explained_in_equal_shares(live: Live) -> None:
    body = {"inputs": ["ball and goal", {"image": "AAAA"}, "the law of the senate"], "explain": True}
    answer = live.score(model="topics", json=body)
    shown = [explanation(answer, index)["tokens"] for index in (0, 2)]
    assert [[token["change"] is not None for token in tokens] for tokens in shown] == [
        [True, True, True],
        [True, True, True, False, False],
    ]
    assert "error" in answer.json()["results"][1]


def test_too_many_texts_to_explain_are_refused(live: Live) -> None:
    answer = live.score(model="topics", json={"inputs": ["ball"] * 5, "explain": True})
    assert "at most 4 texts" in problem(answer, 422, "invalid-parameter")["detail"]


def test_texts_without_a_token_count_as_inputs_of_the_queue(live: Live) -> None:
    with blocked(live, waiting=7):
        content = problem(score(live, "ball and goal of team", params=EXPLAIN), 503, "overloaded")
        assert "queue is full" in content["detail"]


def test_the_deadline_of_a_request_drops_its_texts_without_a_token(live: Live) -> None:
    batcher = live.app.state.repository.get("topics").batcher
    with blocked(live, waiting=0):
        answer = score(live, "ball and goal", params={**EXPLAIN, "timeout_ms": "200"})
        problem(answer, 504, "deadline-passed")
        assert batcher.depth == 0


@contextmanager
def blocked(live: Live, waiting: int) -> Iterator[None]:
    """Blocks the engine of `topics` in the block, with `waiting` inputs in its queue."""
    gate = EngineGate(live, "topics")
    batcher = live.app.state.repository.get("topics").batcher
    with ThreadPoolExecutor(2) as clients:
        try:
            clients.submit(score, live, "ball")
            gate.until_batches(1)
            if waiting:
                clients.submit(live.score, model="topics", json={"inputs": ["ball"] * waiting})
            until(lambda: batcher.depth == waiting)
            yield
        finally:
            gate.open()
    live.engine("topics").replacement = None


def test_a_client_that_disconnects_frees_the_queue(serve: Serve, tmp_path: Path) -> None:
    make_tiny_text_bundle(tmp_path)
    with serve(tmp_path, max_inputs=8) as service:
        batcher = service.app.state.repository.get("topics").batcher
        with blocked(service, waiting=0):
            with pytest.raises(httpx.ReadTimeout):
                score(service, "ball and goal", params=EXPLAIN, timeout=0.3)
            until(lambda: batcher.depth == 0)


def test_special_tokens_are_neither_left_out_nor_shown() -> None:
    tokenizer: Tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    ids = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=list(ids.items()))
    encoder = TextEncoder(tokenizer, 16)
    text = encoder.encode("the ball")
    variants = LeaveOneOut.of([text], encoder, 10)
    assert [encoder.tokens(ids) for ids in variants.texts] == [["[CLS]", "ball", "[SEP]"], ["[CLS]", "the", "[SEP]"]]
