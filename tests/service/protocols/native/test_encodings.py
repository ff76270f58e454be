"""Encodings of real clients: byte order marks, halves of surrogate pairs, base64 variants, transfer encodings."""

import base64
import binascii
import codecs
import json

import httpx
import pytest

from tests.service.conftest import Live
from tests.service.support.answers import problem
from tests.service.support.pictures import picture

TEXT = "the ball and the goal"
ENCODED = base64.b64encode(picture()).decode()


def json_post(live: Live, body: bytes, model: str = "topics", content_type: str = "application/json") -> httpx.Response:
    return live.score(model=model, content=body, headers={"content-type": content_type})


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: text.encode("utf-32-be"),
        lambda text: text.encode("utf-32-le"),
    ],
    ids=["utf-8 mark", "utf-16", "utf-16be mark", "utf-16le", "utf-16be", "utf-32", "utf-32be", "utf-32le"],
)
def test_json_in_any_unicode_encoding_is_scored(text_live: Live, encode: object) -> None:
    text = json.dumps({"inputs": [TEXT, "naïve – 😀"]}, ensure_ascii=False)
    assert callable(encode)
    answer = json_post(text_live, encode(text))
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == json_post(text_live, text.encode()).json()["results"]
    inference = {"inputs": [{"name": "texts", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
    answer = text_live.client.post("/v2/models/topics/infer", content=encode(json.dumps(inference)))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("text/plain", codecs.BOM_UTF8 + TEXT.encode()),
        ("text/plain", TEXT.encode("utf-16")),
        ("text/plain", codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be")),
        ("text/plain; charset=utf-8", TEXT.encode("utf-16")),
        ("text/plain; charset=UTF-16LE", TEXT.encode("utf-16-le")),
        ("text/plain; charset=iso-8859-1", TEXT.encode("latin-1")),
        ('text/plain; charset="Windows-1252"', TEXT.encode("cp1252")),
    ],
)
def test_a_text_is_read_by_its_mark_or_its_charset(text_live: Live, content_type: str, data: bytes) -> None:
    answer = json_post(text_live, data, content_type=content_type)
    assert answer.status_code == 200, answer.text
    plain = json_post(text_live, TEXT.encode(), content_type="text/plain")
    assert answer.json()["results"] == plain.json()["results"]


def test_a_text_that_is_not_valid_in_its_charset_is_an_error(text_live: Live) -> None:
    answer = json_post(text_live, TEXT.encode("utf-16") + b"x", content_type="text/plain")
    problem(answer, 422, "undecodable-text")
    answer = json_post(text_live, b"x", content_type="text/plain; charset=unicode_escape")
    assert "windows-1252" in problem(answer, 415, "unsupported-media-type")["detail"]


@pytest.mark.parametrize(
    "half",
    [rb"\ud83d", rb"\uD83D", rb"\udC00", rb"\udc00\ud800", rb"\ud83d\u0041", rb"\ud83d\\udc00", b"\xed\xa0\xbd"],
)
def test_half_a_surrogate_pair_costs_only_its_own_input(text_live: Live, half: bytes) -> None:
    body = b'{"inputs": ["%s", "cut %s", {"text": "%s", "id": "a"}, {"text": "ball %s", "id": "b"}], "alpha": 0.5}'
    answer = json_post(text_live, body % (TEXT.encode(), half, TEXT.encode(), half))
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert [result.get("error", {}).get("type") for result in content["results"]] == [
        None,
        "undecodable-text",
        None,
        "undecodable-text",
    ]
    assert [result["id"] for result in content["results"]] == [None, None, "a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        rb'{"inputs": ["a"], "\ud83d": 1}',
        rb'{"inputs": ["a"], "scores": ["\ud83d"]}',
        rb'{"inputs": ["a"], "scores": "\ud83d"}',
        rb'{"inputs": [{"text": "a", "id": "\ud83d"}]}',
        rb'{"inputs": [{"image": "\ud83d"}]}',
        rb'{"inputs": [{"\ud83d": "a"}]}',
        rb'["\ud83d"',
        rb'{"inputs": ' + b"[" * 100_000 + rb'"\ud83d"',
    ],
)
def test_half_a_surrogate_pair_elsewhere_is_a_typed_error(text_live: Live, body: bytes) -> None:
    answer = json_post(text_live, body)
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.json()["type"]


def test_whole_surrogate_pairs_are_characters(text_live: Live) -> None:
    answer = json_post(text_live, rb'{"inputs": ["the ball \ud83d\ude00"]}')
    assert answer.json()["results"] == json_post(text_live, '{"inputs": ["the ball 😀"]}'.encode()).json()["results"]


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64," + ENCODED,
        "DATA:image/png;charset=x;BASE64," + ENCODED,
        "data:;base64," + ENCODED.replace("=", "%3D").replace("+", "%2B"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in picture()),
        base64.encodebytes(picture()).decode(),
        ENCODED.replace("A", "A\r\n"),
        " \t" + ENCODED + "\n",
        base64.urlsafe_b64encode(picture()).decode(),
        base64.urlsafe_b64encode(picture()).decode().rstrip("="),
        ENCODED.rstrip("="),
    ],
)
def test_base64_as_clients_write_it_is_decoded(live: Live, text: str) -> None:
    expected = live.score(picture()).json()["results"]
    answer = live.score(json={"inputs": [{"image": text}]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == expected
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
    assert live.client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).status_code == 200


@pytest.mark.parametrize("text", ["data:image/png;base64", "a", "ab=c", "%%%%", "é", "data:;base64,a*b="])
def test_what_is_no_base64_in_any_variant_is_an_error_of_its_input(live: Live, text: str) -> None:
    problem(live.score(json={"inputs": [{"image": text}]}), 422, "invalid-base64")


def form(name: str, headers: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n'
    return head.encode() + data + b"\r\n--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("spelling", ["Base64", "base64", " BASE64 "])
def test_a_part_in_base64_is_decoded(live: Live, text_live: Live, spelling: str) -> None:
    header = f"Content-Transfer-Encoding: {spelling}\r\n"
    content, headers = form("file", header, base64.encodebytes(picture()))
    assert live.score(content=content, headers=headers).json()["results"] == live.score(picture()).json()["results"]
    content, headers = form("text", header, base64.encodebytes(TEXT.encode()))
    answer = text_live.score(model="topics", content=content, headers=headers)
    assert answer.json()["results"] == json_post(text_live, TEXT.encode(), content_type="text/plain").json()["results"]


def test_a_part_in_quoted_printable_is_decoded(live: Live, text_live: Live) -> None:
    header = "Content-Transfer-Encoding: quoted-printable\r\n"
    content, headers = form("file", header, binascii.b2a_qp(picture(), istext=False))
    assert live.score(content=content, headers=headers).json()["results"] == live.score(picture()).json()["results"]
    content, headers = form("text", header, b"the ball =61nd the=\r\n goal")
    answer = text_live.score(model="topics", content=content, headers=headers)
    assert answer.json()["results"] == json_post(text_live, TEXT.encode(), content_type="text/plain").json()["results"]


@pytest.mark.parametrize("name", ["text", "file"])
def test_an_unknown_transfer_encoding_is_refused_by_name(live: Live, text_live: Live, name: str) -> None:
    content, headers = form(name, "Content-Transfer-Encoding: x-uuencode\r\n", b"begin")
    service, model = (live, "tiny") if name == "file" else (text_live, "topics")
    answer = problem(service.score(model=model, content=content, headers=headers), 422, "unsupported-input")
    assert "x-uuencode" in answer["detail"]


@pytest.mark.parametrize(("name", "service"), [("text", "topics"), ("file", "tiny")])
def test_a_part_that_is_not_in_its_transfer_encoding_is_an_error(
    live: Live, text_live: Live, name: str, service: str
) -> None:
    content, headers = form(name, "Content-Transfer-Encoding: base64\r\n", b"*")
    client = live if service == "tiny" else text_live
    problem(client.score(model=service, content=content, headers=headers), 422, "invalid-base64")


def test_the_charset_of_a_part_is_used(text_live: Live) -> None:
    expected = json_post(text_live, json.dumps({"inputs": ["naïve ball"]}).encode()).json()["results"]
    for charset in ("iso-8859-1", "UTF-16", "utf-8"):
        data = "naïve ball".encode(charset)
        content, headers = form("text", f"Content-Type: text/plain; charset={charset}\r\n", data)
        answer = text_live.score(model="topics", content=content, headers=headers)
        assert answer.json()["results"] == expected, charset
    content, headers = form("text", "Content-Type: text/plain; charset=ebcdic\r\n", b"x")
    problem(text_live.score(model="topics", content=content, headers=headers), 422, "undecodable-text")
