"""Wrong requests: each gets a typed problem, never a 500."""

import base64
from typing import Any

import pytest

from tests.service.conftest import Live
from tests.service.support.answers import problem
from tests.service.support.pictures import declared_size, picture

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 422, "empty-input"),
        (picture()[:48], 422, "undecodable-image"),
        (b"just a text in a file named .png", 422, "undecodable-image"),
        (declared_size(0, 0), 422, "undecodable-image"),
        (declared_size(30_000, 30_000), 413, "image-too-large"),
        (picture(size=(1100, 1000)), 413, "image-too-large"),
        (bytes(100), 422, "undecodable-image"),
    ],
    ids=["empty", "truncated", "text", "0x0", "bomb", "over-the-limit", "zeros"],
)
def test_a_bad_image_is_named(live: Live, content: bytes, status: int, kind: str) -> None:
    problem(live.score(content), status, kind)
    answer = live.score(json={"inputs": [{"image": base64.b64encode(content).decode(), "id": "x"}]})
    assert problem(answer, status, kind)["id"] == "x"
    files = [("file", ("a.png", content)), ("file", ("b.png", picture("red")))]
    results = live.score(files=files).json()["results"]
    assert results[0]["error"]["type"] == kind
    assert results[1]["prediction"]["label"] == "red"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain; charset=utf-8", "video/mp4", "application/x-www-form-urlencoded", "nonsense", "a/b/c;;"],
)
def test_a_content_type_that_the_model_does_not_take_is_415(live: Live, content_type: str) -> None:
    detail = problem(live.score(b"hello", headers={"content-type": content_type}), 415, "unsupported-media-type")
    assert "image/png" in detail["detail"]


def test_an_unknown_content_coding_is_415(live: Live) -> None:
    headers = {"content-type": "image/png", "content-encoding": "br"}
    problem(live.score(picture(), headers=headers), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"null", b"\xff", b"[" * 1000, b'{"inputs": [1e]}'],
)
def test_a_body_that_is_no_json_object_is_400(live: Live, body: bytes) -> None:
    problem(live.score(content=body, headers=JSON), 400, "malformed-body")


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": "x"}, "inputs"),
        ({"inputs": {"image": ""}}, "inputs"),
        ({"inputs": ["x"], "alhpa": 0.1}, "alhpa"),
        ({"inputs": ["x"], "alpha": "high"}, "alpha"),
        ({"inputs": ["x"], "alpha": True}, "alpha"),
        ({"inputs": ["x"], "alpha": []}, "alpha"),
        ({"inputs": ["x"], "alpha": 10**400}, "alpha"),
        ({"inputs": ["x"], "scores": []}, "scores"),
        ({"inputs": ["x"], "scores": [1]}, "scores"),
        ({"inputs": ["x"], "scores": {"msp": 1}}, "scores"),
        ({"inputs": ["x"], "threshold": {"energy": 1}}, "threshold"),
        ({"inputs": ["x"], "threshold": {"msp": "x"}}, "threshold.msp"),
        ({"inputs": ["x"], "threshold": 0.5, "scores": "all"}, "threshold"),
        ({"inputs": ["x"], "timeout_ms": 0}, "timeout_ms"),
        ({"inputs": ["x"], "timeout_ms": 1.5}, "timeout_ms"),
    ],
)
def test_a_wrong_member_of_the_json_body_is_named(live: Live, body: Any, parameter: str) -> None:
    assert problem(live.score(json=body), 422, "invalid-parameter")["parameter"] == parameter


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("alpha", value) for value in ("nan", "NaN", "inf", "-0.1", "0", "1", "1.5", "x", "")),
        *(("threshold", value) for value in ("nan", "inf", "x")),
        *(("scores", value) for value in ("nope", "msp,nope", "", "all,msp")),
        *(("timeout_ms", value) for value in ("0", "-1", "nan", "1e999", "soon")),
        ("alhpa", "0.1"),
    ],
)
def test_a_wrong_query_parameter_is_named(live: Live, name: str, value: str) -> None:
    assert problem(live.score(picture(), params={name: value}), 422, "invalid-parameter")["parameter"] == name


def test_nan_in_json_is_refused_under_its_parameters_name(live: Live) -> None:
    body = b'{"inputs": ["x"], "alpha": NaN}'
    assert problem(live.score(content=body, headers=JSON), 422, "invalid-parameter")["parameter"] == "alpha"


def test_an_option_given_twice_is_refused(live: Live) -> None:
    answer = live.client.post("/v1/models/tiny/score?alpha=0.1&alpha=0.2", content=picture())
    assert problem(answer, 422, "invalid-parameter")["parameter"] == "alpha"


def test_an_unknown_score_is_answered_with_the_scores_of_the_model(live: Live) -> None:
    detail = problem(live.score(picture(), params={"scores": "bpp"}), 422, "invalid-parameter")["detail"]
    assert "msp, max_logit, energy, entropy, kl_uniform" in detail


def test_more_inputs_than_allowed_are_413(live: Live) -> None:
    problem(live.score(json={"inputs": ["x"] * 10_000}), 413, "too-many-inputs")
    files = [("file", (f"{i}.png", b"x")) for i in range(33)]
    problem(live.score(files=files), 413, "too-many-inputs")


def test_a_body_over_the_limit_is_413_by_its_declared_length(live: Live) -> None:
    problem(live.score(bytes(200_001)), 413, "body-too-large")


def test_a_chunked_body_over_the_limit_is_413_while_it_arrives(live: Live) -> None:
    problem(live.score(content=iter([bytes(50_000)] * 5), headers={"content-type": "image/png"}), 413, "body-too-large")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 1000, b"x"),
    ],
)
def test_a_malformed_form_is_400(live: Live, content_type: str, body: bytes) -> None:
    problem(live.score(content=body, headers={"content-type": content_type}), 400, "malformed-body")


def test_a_form_part_of_another_name_is_422(live: Live) -> None:
    assert problem(live.score(files={"image": picture()}), 422, "invalid-parameter")["parameter"] == "image"


@pytest.mark.parametrize("path", ["/v1/models/nope/score", "/v1/models/tiny/versions/9/score"])
def test_an_unknown_model_or_version_is_404(live: Live, path: str) -> None:
    answer = live.client.post(path, content=picture())
    assert problem(answer, 404, answer.json()["type"])["type"] in ("unknown-model", "unknown-version")


def test_an_unknown_route_is_404_and_a_wrong_method_405(live: Live) -> None:
    problem(live.client.get("/v1/nothing"), 404, "not-found")
    answer = live.client.put("/v1/models/tiny/score")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "OPTIONS, POST"
