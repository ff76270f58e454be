"""Explanations over HTTP: of scores in bits, and of the predicted class of an image."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle import save_references
from tests.service.conftest import Live, Serve, running_service
from tests.service.support.answers import problem
from tests.service.support.edited_graph import edit_graph
from tests.service.support.engine_gate import EngineGate
from tests.service.support.failing_evidence import fail_to_explain
from tests.service.support.pictures import encoded
from tests.service.support.pictures import picture as coloured_picture
from tests.service.support.texts import score
from tests.support.tiny_bundle import TINY_REFERENCES, make_tiny_bundle
from tests.support.tiny_density_bundle import SIZE, make_tiny_density_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.support.waiting import until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A density, a language model and a classifier."""
    root = tmp_path_factory.mktemp("likelihoods")
    make_tiny_density_bundle(root)
    make_tiny_text_bundle(root, name="words", task="language-model", max_tokens=200)
    make_tiny_bundle(root)
    make_tiny_bundle(root, name="colours", evidence=True)
    make_tiny_bundle(root, name="examples", neighbours=True)
    make_tiny_bundle(root, name="both", evidence=True, neighbours=True)
    with running_service(root, max_inputs=32) as service:
        yield service


def picture() -> bytes:
    """A grey image with one white pixel in the second row and third column."""
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pixels[1, 2] = 255
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_density_scores_in_bits_and_predicts_nothing(live: Live) -> None:
    (result,) = live.score(picture(), model="greyness").json()["results"]
    assert result["prediction"] is None
    assert result["scores"]["bpp"]["value"] == pytest.approx(127 / 16 / SIZE**2, rel=1e-5)
    assert result["scores"]["bpp"]["anomaly"] == result["scores"]["bpp"]["value"]
    assert "explanation" not in result


def test_the_heat_map_of_an_image_is_brightest_at_its_most_improbable_pixel(live: Live) -> None:
    (result,) = live.score(picture(), model="greyness", params={"explain": "true"}).json()["results"]
    explanation = result["explanation"]
    assert (explanation["kind"], explanation["per"]) == ("pixels", "channel")
    assert explanation["max_bits"] == pytest.approx(3 * 127 / 16)
    with Image.open(BytesIO(base64.b64decode(explanation["heat_map"]))) as image:
        shades = np.asarray(image.convert("L"))
    assert shades.shape == (SIZE, SIZE)
    assert np.unravel_index(shades.argmax(), shades.shape) == (1, 2)
    assert (shades == shades.min()).sum() == SIZE**2 - 1


def test_the_heat_map_of_an_image_of_zero_bits_is_black(live: Live) -> None:
    file = BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8)).save(file, "PNG")
    answer = live.score(file.getvalue(), model="greyness", params={"explain": "true"})
    assert answer.json()["results"][0]["explanation"]["max_bits"] == 0


def test_a_text_is_explained_token_by_token(live: Live) -> None:
    (result,) = score(live, "the Ball zyx", model="words", params={"explain": "true"}).json()["results"]
    explanation = result["explanation"]
    assert (explanation["kind"], explanation["per"], explanation["end_bits"]) == ("tokens", "word", None)
    assert [part["token"] for part in explanation["tokens"]] == ["the", "ball", "[UNK]"]
    bits = [part["bits"] for part in explanation["tokens"]]
    assert bits[2] == 20
    assert result["scores"]["bpw"]["value"] == pytest.approx(np.mean(bits), rel=1e-5)


def test_a_text_is_explained_in_bits_whichever_score_is_requested(live: Live) -> None:
    params = {"explain": "true", "scores": "kl_uniform"}
    (result,) = score(live, "the Ball zyx", model="words", params=params).json()["results"]
    assert list(result["scores"]) == ["kl_uniform"]
    assert [part["bits"] for part in result["explanation"]["tokens"]][2] == 20


def test_each_text_of_a_request_is_explained_by_its_own_tokens(live: Live) -> None:
    lengths = [1, 150, 40, 3, 90]
    inputs = [" ".join(["ball"] * (length - 1) + ["zyx"]) for length in lengths]
    body = {"inputs": [*inputs, {"image": "AAAA"}], "explain": True}
    answer = live.score(model="words", json=body).json()
    *results, failed = answer["results"]
    for result, length in zip(results, lengths, strict=True):
        parts = result["explanation"]["tokens"]
        assert len(parts) == length
        assert [part["bits"] for part in parts].index(20) == length - 1
    assert "explanation" not in failed


@pytest.mark.parametrize("value", ["yes", "", "1"])
def test_explain_is_true_or_false(live: Live, value: str) -> None:
    content = problem(live.score(picture(), model="greyness", params={"explain": value}), 422, "invalid-parameter")
    assert "explain" in content["detail"]


@pytest.mark.parametrize("value", [[], {}, [True], 0.5, "yes"])
def test_explain_in_json_is_true_or_false(live: Live, value: Any) -> None:
    answer = live.score(model="words", json={"inputs": ["ball"], "explain": value})
    assert "explain" in problem(answer, 422, "invalid-parameter")["detail"]


def test_the_evidence_of_all_positions_adds_up_to_the_logit_of_the_class(live: Live) -> None:
    params = {"explain": "true", "scores": "msp,max_logit"}
    (result,) = live.score(half_red(), model="colours", params=params).json()["results"]
    explanation = result["explanation"]
    assert explanation["kind"] == "evidence"
    assert result["prediction"]["label"] == "red"
    total = np.sum(explanation["values"]) + explanation["bias"]
    assert total == pytest.approx(explanation["logit"], rel=1e-5)
    assert explanation["logit"] == pytest.approx(result["scores"]["max_logit"]["value"], rel=1e-5)


def test_the_heat_map_of_evidence_is_red_where_it_speaks_for_the_class_and_blue_against_it(live: Live) -> None:
    (result,) = live.score(half_red(), model="colours", params={"explain": "true"}).json()["results"]
    explanation = result["explanation"]
    values = np.asarray(explanation["values"])
    assert (values[:, :6] > 0).all()
    assert (values[:, 6:] < 0).all()
    assert explanation["max_evidence"] == pytest.approx(np.abs(values).max())
    with Image.open(BytesIO(base64.b64decode(explanation["heat_map"]))) as image:
        colours = np.asarray(image.convert("RGB")).astype(int)
    assert colours.shape == (SIZE, SIZE, 3)
    assert (colours[:, :6, 0] > colours[:, :6, 2]).all()
    assert (colours[:, 6:, 0] < colours[:, 6:, 2]).all()


def half_red() -> bytes:
    """An image that is red except for its two last columns, which are black."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:, :6, 0] = 255
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_evidence_is_shown_on_request_only(live: Live) -> None:
    (result,) = live.score(half_red(), model="colours").json()["results"]
    assert "explanation" not in result


def test_evidence_is_computed_on_request_only(serve: Serve, tmp_path: Path) -> None:
    edit_graph(make_tiny_bundle(tmp_path, evidence=True), partial(fail_to_explain, darkest=255))
    with serve(tmp_path, inline=True) as service:
        assert service.score(half_red()).status_code == 200
        problem(service.score(half_red(), params={"explain": "true"}), 500, "inference-failed")
        assert service.score(picture_of(254), params={"explain": "true"}).status_code == 200


def picture_of(shade: int) -> bytes:
    """A grey image."""
    file = BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_requests_with_and_without_an_explanation_share_a_batch(live: Live) -> None:
    gate = EngineGate(live, "colours")
    batcher = live.app.state.repository.get("colours").batcher
    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(live.score, half_red(), model="colours")
        gate.until_batches(1)
        asked = [{}, {"explain": "true"}]
        later = [clients.submit(live.score, half_red(), model="colours", params=params) for params in asked]
        until(lambda: batcher.depth == 2)
        gate.open()
        results = [answer.result().json()["results"][0] for answer in [first, *later]]
    assert ["explanation" in result for result in results] == [False, False, True]
    assert gate.batches == [1]


def test_the_nearest_training_examples_are_listed_with_class_source_and_distance(live: Live) -> None:
    (result,) = live.score(coloured_picture("red"), model="examples", params={"explain": "true"}).json()["results"]
    assert "explanation" not in result
    nearest = result["neighbours"]
    assert [(example["label"], example["source"]) for example in nearest] == [
        ("red", "red/a.png"),
        ("red", "row 7"),
        ("green", "green/b.png"),
    ]
    distances = [example["distance"] for example in nearest]
    assert distances[0] == pytest.approx(0, abs=1e-5)
    assert distances == sorted(distances)


def test_an_input_has_its_own_neighbours_beside_its_evidence(live: Live) -> None:
    inputs = [{"image": encoded(coloured_picture(colour))} for colour in ("blue", "lime")]
    answer = live.score(model="both", json={"inputs": inputs, "explain": True}).json()
    assert [result["neighbours"][0]["source"] for result in answer["results"]] == ["blue/c.png", "green/b.png"]
    assert [result["explanation"]["kind"] for result in answer["results"]] == ["evidence", "evidence"]


def test_neighbours_are_shown_on_request_only(live: Live) -> None:
    (result,) = live.score(picture(), model="both").json()["results"]
    assert result.keys().isdisjoint({"neighbours", "explanation"})


def test_a_neighbour_without_a_training_example_is_an_error_of_the_input(serve: Serve, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, neighbours=True)
    save_references(bundle / "references.json", TINY_REFERENCES[:1])
    edit_graph(bundle, lambda _: None)
    with serve(tmp_path) as service:
        answer = service.score(coloured_picture("blue"), params={"explain": "true"})
        problem(answer, 422, "invalid-neighbours")
        assert service.score(coloured_picture("blue")).status_code == 200


def test_the_description_of_a_model_says_what_explanations_it_has(live: Live) -> None:
    kinds = {model["name"]: model["explanations"] for model in live.client.get("/v1/models").json()["models"]}
    assert kinds == {
        "greyness": ["pixels"],
        "words": ["tokens"],
        "tiny": [],
        "colours": ["evidence"],
        "examples": ["neighbours"],
        "both": ["evidence", "neighbours"],
    }


def test_a_classifier_without_evidence_explains_nothing(live: Live) -> None:
    content = problem(live.score(picture(), params={"explain": "true"}), 422, "invalid-parameter")
    assert "no explanations" in content["detail"]
    assert live.score(picture(), params={"explain": "false"}).status_code == 200


def test_the_description_of_a_model_has_the_unit_of_its_bits(live: Live) -> None:
    def likelihood(model: str) -> Any:
        return live.client.get(f"/v1/models/{model}").json()["likelihood"]

    assert likelihood("greyness") == {"per": "channel", "counts_end": False, "parts": "bits"}
    assert likelihood("words")["per"] == "word"
    assert likelihood("tiny") is None


@pytest.mark.parametrize("change", ["replaced", "truncated", "deleted"])
def test_an_explanation_is_never_computed_by_another_graph_than_the_scores(
    change: str, tmp_path: Path, serve: Serve
) -> None:
    graph = make_tiny_bundle(tmp_path / "served", evidence=True) / "model.onnx"
    other = make_tiny_bundle(tmp_path / "other", evidence=True, labels=("blue", "green", "red"), seed=5) / "model.onnx"
    with serve(tmp_path / "served", max_batch=2) as live:
        expected = live.score(coloured_picture("red")).json()
        if change == "replaced":
            graph.write_bytes(other.read_bytes()[:-1] + b"\0")
        elif change == "truncated":
            graph.write_bytes(graph.read_bytes()[:100])
        else:
            graph.unlink()
        # Both inputs are in one batch: only the one with an explanation fails.
        gate = EngineGate(live)
        with ThreadPoolExecutor(3) as pool:
            blocking = pool.submit(live.score, coloured_picture("blue"))
            gate.until_batches(1)
            plain = pool.submit(live.score, coloured_picture("red"))
            explained = pool.submit(live.score, coloured_picture("red"), params={"explain": "true"})
            until(lambda: live.app.state.repository.get("tiny").batcher.depth == 2)
            gate.open()
            assert blocking.result().status_code == 200
        assert plain.result().json() == expected
        problem(explained.result(), 500, "inference-failed")
        assert live.score(coloured_picture("red")).json() == expected
