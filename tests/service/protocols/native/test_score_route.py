"""`POST .../score` with every kind of body and every option, on a real socket."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from bundle import decode_image, load_bundle
from service.inference.execution_plan import ExecutionMode
from tests.service.conftest import Live, Serve
from tests.service.support.pictures import encoded, picture


def test_a_raw_image_is_scored_with_the_latest_version(live: Live) -> None:
    answer = live.score(picture("red")).json()
    assert (answer["model"], answer["version"], answer["errors"]) == ("tiny", "2", 0)
    (result,) = answer["results"]
    assert result["index"] == 0
    assert result["id"] is None
    assert result["prediction"]["label"] == "red"
    assert result["flagged"] is False
    assert list(result["scores"]) == ["msp"]
    assert result["p_value"] == result["scores"]["msp"]["p_value"]


def test_a_named_version_is_used(live: Live) -> None:
    request = {"content": picture(), "headers": {"content-type": "image/png"}}
    assert live.client.post("/v1/models/tiny/versions/1/score", **request).json()["version"] == "1"


@pytest.mark.parametrize(
    ("content_type", "file_format"),
    [
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/webp", "WEBP"),
        ("image/bmp", "BMP"),
        ("application/octet-stream", "JPEG"),
        ("IMAGE/PNG; whatever=1", "PNG"),
    ],
)
def test_each_raw_content_type_is_taken(live: Live, content_type: str, file_format: str) -> None:
    body = picture("lime", (64, 48), file_format)
    answer = live.score(body, headers={"content-type": content_type})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["prediction"]["label"] == "green"


def test_a_raw_image_without_content_type_is_taken(live: Live) -> None:
    request = live.client.build_request("POST", "/v1/models/tiny/score", content=picture())
    assert "content-type" not in request.headers
    assert live.client.send(request).status_code == 200


def test_a_grey_model_takes_colour_images(live: Live) -> None:
    labels = [
        live.score(picture(colour), model="grey").json()["results"][0]["prediction"]["label"]
        for colour in ("navy", "white")
    ]
    assert labels == ["dark", "light"]


def test_an_image_too_large_to_be_decoded_inline_is_scored(live: Live) -> None:
    assert live.score(picture("blue", (900, 900))).json()["results"][0]["prediction"]["label"] == "blue"


def test_json_inputs_keep_their_order_and_ids(live: Live) -> None:
    colours = ["red", "lime", "blue"] * 5
    inputs = [{"image": encoded(picture(colour)), "id": f"{i}-{colour}"} for i, colour in enumerate(colours)]
    results = live.score(json={"inputs": inputs}).json()["results"]
    labels = {"red": "red", "lime": "green", "blue": "blue"}
    assert [result["prediction"]["label"] for result in results] == [labels[colour] for colour in colours]
    assert [result["id"] for result in results] == [item["id"] for item in inputs]
    assert [result["index"] for result in results] == list(range(15))


def test_form_files_are_scored_in_order(live: Live) -> None:
    files = [("file", ("a.png", picture("blue"))), ("file", ("b.jpg", picture("red", file_format="JPEG")))]
    results = live.score(files=files).json()["results"]
    assert [result["prediction"]["label"] for result in results] == ["blue", "red"]


def test_requested_scores_come_in_their_order_and_the_first_decides_the_flag(live: Live) -> None:
    (result,) = live.score(picture(), params={"scores": "all"}).json()["results"]
    assert list(result["scores"]) == ["msp", "max_logit", "energy", "entropy", "kl_uniform"]
    (result,) = live.score(picture(), params={"scores": "energy,msp"}).json()["results"]
    assert list(result["scores"]) == ["energy", "msp"]
    assert result["p_value"] == result["scores"]["energy"]["p_value"]


def test_the_answer_follows_from_the_calibration_of_the_bundle(live: Live) -> None:
    bundle = load_bundle(live.app.state.repository.get("tiny").bundle.path)
    image = picture("gray")
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    (msp,) = session.run(["msp"], {"images": decode_image(image, bundle.manifest.input)[None]})
    calibration = bundle.calibrations["msp"]
    entry = live.score(image, params={"alpha": "0.2"}).json()["results"][0]["scores"]["msp"]
    assert entry["value"] == pytest.approx(float(msp[0]), abs=1e-6)
    assert entry["anomaly"] == pytest.approx(1 - float(msp[0]), abs=1e-6)
    assert entry["p_value"] == float(calibration.p_value(entry["anomaly"]))
    assert entry["threshold"] == calibration.threshold(0.2)
    assert entry["flagged"] is (entry["p_value"] <= 0.2)
    assert entry["flagged"] is True


def test_a_model_that_runs_inline_gives_the_scores_of_one_on_a_thread(repository: Path, serve: Serve) -> None:
    images = [picture(colour) for colour in ("red", "lime", "blue", "gray") * 8]
    with serve(repository, inline=True) as inline, serve(repository) as threaded, ThreadPoolExecutor(8) as pool:
        assert inline.app.state.repository.get("tiny").batcher.plan.mode is ExecutionMode.INLINE
        assert threaded.app.state.repository.get("tiny").batcher.plan.mode is ExecutionMode.EXCLUSIVE
        for image, answer in zip(images, pool.map(inline.score, images), strict=True):
            assert answer.json()["results"][0]["scores"] == threaded.score(image).json()["results"][0]["scores"]
        several = {"inputs": [{"image": encoded(image)} for image in images]}
        assert inline.score(json=several).json() == threaded.score(json=several).json()


def test_a_threshold_replaces_alpha(live: Live) -> None:
    entry = live.score(picture("gray"), params={"threshold": "0.9"}).json()["results"][0]["scores"]["msp"]
    assert (entry["threshold"], entry["flagged"]) == (0.9, False)
    body = {"inputs": [{"image": encoded(picture("gray"))}], "scores": ["msp", "entropy"], "threshold": {"msp": 0.1}}
    scores = live.score(json=body).json()["results"][0]["scores"]
    assert (scores["msp"]["threshold"], scores["msp"]["flagged"]) == (0.1, True)
    assert scores["entropy"]["threshold"] not in (None, 0.1)


def test_options_in_the_body_override_the_query(live: Live) -> None:
    body = {"inputs": [{"image": encoded(picture("gray"))}], "threshold": 0.9}
    answer = live.score(json=body, params={"threshold": "0.1", "scores": "msp"}).json()
    assert answer["results"][0]["scores"]["msp"]["threshold"] == 0.9


def test_an_alpha_below_the_smallest_p_value_flags_nothing_and_is_warned_of(live: Live) -> None:
    answer = live.score(picture("gray"), params={"alpha": "0.0001"}).json()
    entry = answer["results"][0]["scores"]["msp"]
    assert (entry["threshold"], entry["flagged"]) == (None, False)
    assert answer["warnings"][0].startswith("msp: nothing can be flagged at alpha 0.0001")
    assert "warnings" not in live.score(picture("gray")).json()


def test_the_clients_request_id_is_used_and_a_missing_one_is_generated(live: Live) -> None:
    answer = live.score(picture(), headers={"content-type": "image/png", "x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    generated = live.score(picture()).headers["x-request-id"]
    assert len(generated) == 32
    assert generated != live.score(picture()).headers["x-request-id"]


def test_an_invalid_request_id_is_replaced(live: Live) -> None:
    answer = live.score(b"", headers={"content-type": "image/png", "x-request-id": "a b" * 100})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_bad_input_does_not_affect_the_others(live: Live) -> None:
    good: Any = {"image": encoded(picture("red")), "id": "good"}
    bad: list[Any] = [
        {"image": encoded(b"no image")},
        {"image": "%%%"},
        {"image": ""},
        {"image": encoded(picture()), "text": "both"},
        {"text": "a text"},
        "a text",
        {"id": "neither"},
        {"image": encoded(picture()), "id": 7},
        {"image": 1},
        17,
        None,
        [],
    ]
    for item in bad:
        answer = live.score(json={"inputs": [good, item, good]})
        assert answer.status_code == 200
        content = answer.json()
        assert content["errors"] == 1
        assert [("error" in result) for result in content["results"]] == [False, True, False]
        assert content["results"][1]["error"]["type"]
        assert content["results"][1]["error"]["detail"]
        assert live.score(json={"inputs": [item]}).status_code == 422


def test_a_request_with_several_bad_inputs_only_has_an_error_for_each(live: Live) -> None:
    answer = live.score(json={"inputs": ["a", {"image": "AAAA"}]})
    assert (answer.status_code, answer.json()["errors"]) == (200, 2)
