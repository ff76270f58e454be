"""Texts over HTTP, in every kind of body."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnxruntime
import pytest

from bundle import load_bundle, pad_tokens
from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.exposition import value
from tests.service.support.texts import POLITICS, SCIENCE, SPORTS, labels, score
from tests.support.tiny_text_bundle import tiny_texts


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/plain; charset=utf-8", 'Text/Plain; charset="UTF8"', "text/plain; charset=us-ascii; format=x"],
)
def test_a_plain_text_is_scored(text_live: Live, content_type: str) -> None:
    answer = score(text_live, SPORTS, headers={"content-type": content_type})
    assert labels(answer) == ["sports"]
    (result,) = answer.json()["results"]
    assert list(result["scores"]) == ["msp"]
    assert result["flagged"] is False
    assert 0 < result["p_value"] <= 1


def test_a_text_out_of_distribution_is_flagged(text_live: Live) -> None:
    (result,) = score(text_live, "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich").json()["results"]
    assert (result["flagged"], result["p_value"]) == (True, pytest.approx(result["scores"]["msp"]["p_value"]))


def test_json_strings_and_objects_are_scored_in_order(text_live: Live) -> None:
    body = {"inputs": [SPORTS, {"text": POLITICS, "id": "p"}, {"text": SCIENCE}, SPORTS]}
    answer = text_live.score(model="topics", json=body)
    assert labels(answer) == ["sports", "politics", "science", "sports"]
    assert [result["id"] for result in answer.json()["results"]] == [None, "p", None, None]


def test_form_texts_are_scored_in_order(text_live: Live) -> None:
    parts = [("text", (None, text)) for text in (POLITICS, SPORTS)]
    assert labels(text_live.score(model="topics", files=parts)) == ["politics", "sports"]


def test_a_byte_order_mark_is_not_part_of_the_text(text_live: Live) -> None:
    marked, plain = (score(text_live, content).json()["results"] for content in (b"\xef\xbb\xbfatom", b"atom"))
    assert marked == plain
    part = text_live.score(model="topics", files=[("text", (None, b"\xef\xbb\xbfatom"))])
    assert part.json()["results"] == plain


def test_the_answer_follows_from_the_calibration_of_the_bundle(text_live: Live) -> None:
    bundle = load_bundle(text_live.app.state.repository.get("topics").bundle.path)
    assert bundle.text_encoder is not None
    text = "a ball is of the law"
    tokens, lengths = pad_tokens([bundle.text_encoder.encode(text)])
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    (msp,) = session.run(["msp"], {"tokens": tokens, "lengths": lengths})
    entry = score(text_live, text, params={"alpha": "0.3"}).json()["results"][0]["scores"]["msp"]
    assert entry["value"] == pytest.approx(float(msp[0]), abs=1e-6)
    assert entry["p_value"] == float(bundle.calibrations["msp"].p_value(entry["anomaly"]))
    assert entry["threshold"] == bundle.calibrations["msp"].threshold(0.3)
    assert entry["flagged"] is (entry["p_value"] <= 0.3)


def test_options_work_as_for_images(text_live: Live) -> None:
    (result,) = score(text_live, SPORTS, params={"scores": "all"}).json()["results"]
    assert list(result["scores"]) == ["msp", "max_logit", "energy", "entropy", "kl_uniform"]
    body = {"inputs": [SPORTS], "threshold": {"msp": -1}}
    assert text_live.score(model="topics", json=body).json()["results"][0]["flagged"] is True
    assert (
        problem(score(text_live, SPORTS, params={"scores": "bpw"}), 422, "invalid-parameter")["parameter"] == "scores"
    )


def test_a_language_model_scores_and_predicts_nothing(text_live: Live) -> None:
    results = text_live.score(model="words", json={"inputs": ["the ball", "xyzzy plugh"]}).json()["results"]
    assert [result["prediction"] for result in results] == [None, None]
    assert [result["flagged"] for result in results] == [False, True]
    assert results[1]["scores"]["bpw"]["value"] == pytest.approx(20)


def test_concurrent_texts_of_all_lengths_score_as_in_requests_of_their_own(text_repository: Path, serve: Serve) -> None:
    batch = [*tiny_texts(90, seed=5), *("ball " * n for n in (1, 31, 32, 33, 900)), "vote", "xyzzy"]
    with serve(text_repository, max_batch=64) as live, ThreadPoolExecutor(12) as pool:
        alone = [score(live, text, params={"scores": "all"}).json()["results"][0] for text in batch]
        again = list(pool.map(lambda text: score(live, text, params={"scores": "all"}).json()["results"][0], batch * 3))
        together = live.score(model="topics", json={"inputs": batch, "scores": "all"}).json()["results"]
    for position, result in enumerate([*again, *together]):
        expected = alone[position % len(batch)]
        assert result["prediction"]["label"] == expected["prediction"]["label"]
        for name, entry in expected["scores"].items():
            assert result["scores"][name]["value"] == pytest.approx(entry["value"], abs=1e-5), (name, position)


def test_readiness_and_metrics_are_those_of_any_model(text_repository: Path, serve: Serve) -> None:
    with serve(text_repository) as live:
        assert live.client.get("/readyz").status_code == 200
        score(live, SPORTS)
        score(live, " ")
        live.score(model="topics", json={"inputs": [SPORTS, "xyzzy", {"image": "AA=="}]})
        topics = {"model": "topics", "version": "1"}
        assert value(live.client, "ood_inputs_total", **topics) == 3
        assert value(live.client, "ood_flagged_inputs_total", **topics, score="msp") == 1
        assert value(live.client, "ood_p_value_count", **topics, score="msp") == 3
        assert value(live.client, "ood_preprocess_seconds_count", model="topics") == 5
        assert value(live.client, "ood_input_errors_total", model="topics", reason="empty-input") == 1
        assert value(live.client, "ood_input_errors_total", model="topics", reason="unsupported-input") == 1
        assert value(live.client, "ood_model_info", **topics, provider="CPUExecutionProvider") == 1


def test_a_text_model_is_listed_with_what_a_client_needs(text_live: Live) -> None:
    listed = {model["name"]: model for model in text_live.client.get("/v1/models").json()["models"]}
    assert (listed["topics"]["modality"], listed["topics"]["task"]) == ("text", "classification")
    assert listed["topics"]["input"] == {"kind": "text", "tokenizer": "tokenizer.json", "max_tokens": 32}
    assert (listed["words"]["labels"], listed["words"]["default_score"]) == ([], "bpw")


def test_the_detail_of_a_model_says_how_its_default_score_was_chosen(text_live: Live) -> None:
    assert text_live.client.get("/v1/models/words").json()["default_score_reason"] == "the first one, for tests"
