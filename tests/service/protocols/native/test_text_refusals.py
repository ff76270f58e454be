"""Bad texts and wrong content types: a typed problem or error, never a fault, and no effect on other inputs."""

from typing import Any

import pytest

from tests.service.conftest import Live
from tests.service.support.answers import problem
from tests.service.support.pictures import encoded, picture
from tests.service.support.texts import POLITICS, SCIENCE, SPORTS, labels, score


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        (b"", 422, "empty-input"),
        (b" \n\t ", 422, "empty-input"),
        ("\u3000\u2028".encode(), 422, "empty-input"),
        (b"\xef\xbb\xbf", 422, "empty-input"),
        (b"caf\xe9", 422, "undecodable-text"),
        (b"\xed\xa0\x80 a surrogate", 422, "undecodable-text"),
        (b"w" * 5_001, 413, "text-too-long"),
        (b" " * 5_001, 413, "text-too-long"),
    ],
    ids=["empty", "spaces", "wide-spaces", "bom-only", "latin-1", "surrogate", "one-word", "many-spaces"],
)
def test_a_bad_text_is_named_and_does_not_affect_the_others(
    text_live: Live, text: bytes, status: int, kind: str
) -> None:
    problem(score(text_live, text), status, kind)
    parts = [("text", (None, part)) for part in (SPORTS, text, SCIENCE)]
    answer = text_live.score(model="topics", files=parts)
    assert labels(answer) == ["sports", None, "science"]
    assert answer.json()["results"][1]["error"]["type"] == kind
    assert answer.json()["errors"] == 1


def test_a_text_of_just_the_longest_length_is_scored(text_live: Live) -> None:
    assert labels(score(text_live, ("ball " * 1_000)[:5_000])) == ["sports"]


def test_odd_characters_are_scored_or_named_but_never_a_fault(text_live: Live) -> None:
    odd = [
        "\0",
        "\u200b",
        "\ufeff",
        "\U0010ffff",
        "a\u0301" * 200,
        "\u202eball",
        "🏳️‍🌈",
        "\r\n.\r\n",
        "[PAD] [UNK]",
        "%00",
    ]
    answer = text_live.score(model="topics", json={"inputs": odd})
    assert answer.status_code == 200
    assert {result.get("error", {}).get("type") for result in answer.json()["results"]} <= {None, "empty-input"}


def test_good_and_bad_inputs_of_json_are_answered_one_by_one(text_live: Live) -> None:
    bad: list[Any] = ["", {"text": " "}, {"image": encoded(picture())}, {"image": "%%%"}, {"text": 1}, 17, "w" * 5_001]
    answer = text_live.score(model="topics", json={"inputs": [SPORTS, *bad, POLITICS]})
    assert labels(answer) == ["sports", *[None] * len(bad), "politics"]
    kinds = [result["error"]["type"] for result in answer.json()["results"] if "error" in result]
    assert kinds == ["empty-input"] * 2 + ["unsupported-input"] * 2 + ["invalid-input"] * 2 + ["text-too-long"]


def test_an_image_sent_to_a_text_model_is_unsupported_and_the_reverse(text_live: Live) -> None:
    content = problem(
        text_live.score(model="topics", json={"inputs": [{"image": encoded(picture())}]}), 422, "unsupported-input"
    )
    assert "scores texts" in content["detail"]
    assert "Send `text`" in content["detail"]
    problem(text_live.score(model="topics", files=[("file", picture())]), 422, "unsupported-input")
    content = problem(text_live.score(json={"inputs": ["a text"]}), 422, "unsupported-input")
    assert "scores images" in content["detail"]
    problem(text_live.score(files=[("text", (None, "a text"))]), 422, "unsupported-input")


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "text/html", "text/csv"])
def test_another_content_type_is_415_with_those_that_the_model_takes(text_live: Live, content_type: str) -> None:
    answer = score(text_live, SPORTS, headers={"content-type": content_type})
    detail = problem(answer, 415, "unsupported-media-type")["detail"]
    assert "This model takes text/plain, multipart/form-data, application/json." in detail
    assert repr(content_type) in detail


def test_a_text_body_sent_to_an_image_model_is_415(text_live: Live) -> None:
    detail = problem(score(text_live, SPORTS, model="tiny"), 415, "unsupported-media-type")["detail"]
    assert "This model takes image/png" in detail


def test_a_text_body_without_content_type_is_415_with_that_reason(text_live: Live) -> None:
    content = problem(text_live.client.post("/v1/models/topics/score", content=SPORTS), 415, "unsupported-media-type")
    assert "without a Content-Type" in content["detail"]


def test_the_default_content_type_of_curl_is_415_with_the_header_to_add(text_live: Live) -> None:
    answer = score(text_live, SPORTS, headers={"content-type": "application/x-www-form-urlencoded"})
    assert "add -H 'Content-Type: text/plain'" in problem(answer, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize("charset", ["ebcdic", "utf-7", "unicode_escape", "idna", "", "x" * 500])
def test_an_unknown_charset_is_415(text_live: Live, charset: str) -> None:
    answer = score(text_live, SPORTS, headers={"content-type": f"text/plain; charset={charset}"})
    assert "Send the text in one of utf-8" in problem(answer, 415, "unsupported-media-type")["detail"]
