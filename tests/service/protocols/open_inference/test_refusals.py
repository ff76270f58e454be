"""Wrong requests of the Open Inference Protocol: the error names the tensor, the reason and the remedy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from tests.service.conftest import Live
from tests.service.support.pictures import declared_size, encoded, picture

FILE = encoded(picture())
IMAGE = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [FILE]}
PIXELS = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [7] * 192}
BINARY = {"name": "images", "datatype": "BYTES", "shape": [1]}


def infer(live: Live, body: Any = None, *, model: str = "tiny", **request: Any) -> httpx.Response:
    return live.client.post(f"/v2/models/{model}/infer", **({} if body is None else {"json": body}), **request)


def send_binary(
    live: Live, tensor: Mapping[str, Any], data: bytes, size: int | None = None, **headers: str
) -> httpx.Response:
    """POST one tensor with the binary `data`, which declares `size` bytes of them."""
    declared = {**tensor, "parameters": {"binary_data_size": len(data) if size is None else size}}
    text = json.dumps({"inputs": [declared]}).encode()
    length = {"inference-header-content-length": str(len(text))} | headers
    return infer(live, content=text + data, headers=length)


def error(answer: httpx.Response, status: int, kind: str) -> str:
    """Assert that `answer` is an error of the type `kind`, and return its detail."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    error_type, _, detail = answer.json()["error"].partition(": ")
    assert error_type == kind, answer.text
    return str(detail)


def element(data: bytes, length: int | None = None) -> bytes:
    return (len(data) if length is None else length).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (IMAGE | {"name": "x"}, "input 'x': this model's input is 'images'"),
        (IMAGE | {"datatype": "FP32"}, "send BYTES of shape [N] or [N, 1]; UINT8 of shape [N, 8, 8, 3]"),
        (IMAGE | {"shape": []}, "input 'images': shape [] does not fit; BYTES has [N] or [N, 1]"),
        (
            IMAGE | {"shape": [0], "data": []},
            "input 'images': shape [0] does not fit; BYTES has [N] or [N, 1], N at le",
        ),
        (IMAGE | {"shape": [1, 2]}, "input 'images': shape [1, 2] does not fit"),
        (IMAGE | {"shape": [2]}, "input 'images': shape [2] has 2 elements, data has 1; correct one of them"),
        (IMAGE | {"data": [[FILE]]}, "input 'images': element 0 is no string; BYTES in JSON are strings, for an image"),
        (IMAGE | {"data": [1]}, "input 'images': element 0 is no string"),
        (IMAGE | {"shape": [1.5]}, "inputs.0.shape.0: Input should be a valid integer"),
        (IMAGE | {"shape": [True]}, "inputs.0.shape.0: Input should be a valid integer"),
        (IMAGE | {"shape": [-1]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        (IMAGE | {"shape": [10**30]}, "inputs.0.shape.0: "),
        (IMAGE | {"data": None}, "input 'images': give either `data` or the parameter `binary_data_size`"),
        (IMAGE | {"parameters": {"binary_data_size": 3}}, "input 'images': give either `data` or the parameter"),
        (BINARY | {"parameters": {"binary_data_size": 3}}, "input 'images': has binary_data_size, but the HTTP header"),
        (
            IMAGE | {"parameters": {"shared_memory_region": "x"}},
            "inputs.0.parameters.shared_memory_region: no such key",
        ),
        (IMAGE | {"dtype": "BYTES"}, "inputs.0.dtype: no such key; leave it out; if it means `datatype`, write that"),
        (
            IMAGE | {"parameters": {"alpha": 0.1}},
            "inputs.0.parameters.alpha: no such key; leave it out, or put `alpha`",
        ),
        (PIXELS | {"shape": [1, 3, 8, 8]}, "input 'images': shape [1, 3, 8, 8] does not fit; UINT8 has [N, 8, 8, 3]"),
        (PIXELS | {"shape": [192]}, "input 'images': shape [192] does not fit; UINT8 has [N, 8, 8, 3]"),
        (PIXELS | {"data": [7] * 191}, "input 'images': shape [1, 8, 8, 3] has 192 elements, data has 191"),
        (
            PIXELS | {"data": [[7] * 192]},
            "data is not nested as its shape [1, 8, 8, 3] says; nest it so, or send it flat",
        ),
        *(
            (PIXELS | {"data": [bad] + [7] * 191}, "input 'images': a value is no whole number from 0 to 255")
            for bad in (256, -1, 0.5, True, None, "7", float("nan"), 10**30)
        ),
    ],
)
def test_a_wrong_tensor_is_named_with_what_is_wrong(live: Live, tensor: dict[str, Any], says: str) -> None:
    # Not by httpx, which refuses NaN.
    text = json.dumps({"inputs": [tensor]})
    assert says in error(infer(live, content=text), 422, "invalid-parameter")


@pytest.mark.parametrize(
    ("tensor", "data", "size", "says"),
    [
        (BINARY, element(b"abc", 4), None, "element 0 claims 4 bytes, but 3 are left"),
        (BINARY, element(b"abc", 2**32 - 1), None, "element 0 claims 4294967295 bytes, but 3 are left"),
        (BINARY, b"abc", None, "element 0 has no length: 3 bytes are left of 3"),
        (BINARY, b"", None, "element 0 has no length: 0 bytes are left of 0"),
        (BINARY | {"shape": [3]}, element(b"abc") * 2, None, "element 2 has no length: 0 bytes are left of 14"),
        (BINARY, element(b"abc") * 2, None, "7 bytes are left behind its 1 elements; correct shape"),
        (BINARY, element(b"abc"), 6, "binary_data_size is 6, but 7 bytes follow the JSON; correct it"),
        (BINARY, element(b"abc"), 8, "binary_data_size is 8, but 7 bytes follow the JSON; correct it"),
        (
            PIXELS | {"data": None},
            bytes(191),
            None,
            "shape [1, 8, 8, 3] is 192 bytes, not 191; correct shape, or send as many",
        ),
        (PIXELS | {"data": None}, bytes(193), None, "shape [1, 8, 8, 3] is 192 bytes, not 193"),
    ],
)
def test_binary_data_that_do_not_match_are_named(
    live: Live, tensor: dict[str, Any], data: bytes, size: int | None, says: str
) -> None:
    detail = error(send_binary(live, tensor, data, size), 422, "invalid-parameter")
    assert detail.startswith("input 'images': ")
    assert says in detail


def test_data_both_in_the_json_and_after_it_are_rejected(live: Live) -> None:
    text = json.dumps({"inputs": [IMAGE]}).encode()
    answer = infer(live, content=text + b"abc", headers={"inference-header-content-length": str(len(text))})
    assert "3 bytes follow the JSON, but its data are in the JSON" in error(answer, 422, "invalid-parameter")


@pytest.mark.parametrize(
    ("length", "says"),
    [
        ("100000", "says 100000 bytes of JSON, but the body has "),
        *((text, "is not a number of bytes") for text in ("-1", "x", "1.0", "", "9" * 5000)),
        *((text, "The body is not an inference request in JSON: ") for text in ("0", "5")),
    ],
)
def test_a_wrong_header_length_is_a_malformed_body(live: Live, length: str, says: str) -> None:
    answer = send_binary(live, BINARY, element(picture()), **{"inference-header-content-length": length})
    assert says in error(answer, 400, "malformed-body")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"null", b"\xff", b"[" * 1000, b'{"id": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_malformed(live: Live, body: bytes) -> None:
    error(infer(live, content=body), 400, "malformed-body")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "inputs: give a list of one tensor, 'images', that holds every input"),
        ({"inputs": []}, "inputs: give a list of one tensor, 'images'"),
        ({"inputs": [IMAGE, IMAGE]}, "inputs: give a list of one tensor, 'images'"),
        ({"inputs": {}}, "inputs: give a list of one tensor, 'images'"),
        ({"inputs": [1]}, "inputs.0: "),
        ({"id": 7}, "id: Input should be a valid string"),
        ({"id": "x" * 257}, "id: String should have at most 256 characters"),
        ({"alpha": 0.1}, "alpha: no such key; leave it out, or put `alpha` into the `parameters` of the request"),
        ({"params": {"alpha": 0.1}}, "params: no such key; leave it out; if it means `parameters`, write that"),
        ({"parameters": {"alhpa": 0.1}}, "parameters.alhpa: no such parameter; there are alpha, threshold, scores"),
        ({"parameters": {"explain": True}}, "parameters.explain: no such parameter"),
        ({"parameters": {"alpha": float("nan")}}, "alpha: nan is not a finite number"),
        ({"parameters": {"alpha": 2}}, "alpha: 2.0 is not a false-flag rate"),
        ({"parameters": {"timeout_ms": 0}}, "timeout_ms: "),
        ({"parameters": {"scores": "bpp"}}, "scores: this model does not offer 'bpp'"),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: give true or false"),
        ({"parameters": [1]}, "parameters: Input should be"),
        (
            {"outputs": [{"name": "nope"}]},
            "outputs: there is no output 'nope'; this model's outputs are flagged, p_value",
        ),
        ({"outputs": [{"name": "msp"}, {"name": "msp"}]}, "outputs: output 'msp' is asked for twice"),
        (
            {"outputs": [{"name": "msp", "parameters": {"binary_dat": True}}]},
            "outputs.0.parameters.binary_dat: no such key; leave it out; if it means `binary_data`, write that",
        ),
        ({"outputs": [{"name": "energy.p_value"}], "parameters": {"scores": "msp"}}, "needs the score energy, but"),
    ],
)
def test_a_wrong_member_is_named(live: Live, body: dict[str, Any], says: str) -> None:
    text = json.dumps(body if "inputs" in body or not body else {"inputs": [IMAGE], **body})
    assert says in error(infer(live, content=text), 422, "invalid-parameter")


@pytest.mark.parametrize(
    ("files", "status", "kind", "index"),
    [
        ([b""], 422, "empty-input", 0),
        ([picture(), b"no image"], 422, "undecodable-image", 1),
        ([declared_size(30_000, 30_000), picture()], 413, "image-too-large", 0),
    ],
)
def test_an_input_that_cannot_be_scored_is_named_by_its_index(
    live: Live, files: Sequence[bytes], status: int, kind: str, index: int
) -> None:
    answer = send_binary(live, BINARY | {"shape": [len(files)]}, b"".join(element(file) for file in files))
    assert error(answer, status, kind).startswith(f"input 'images', element {index}: ")


def test_a_text_that_is_no_utf8_and_a_text_too_long_are_named(text_live: Live) -> None:
    tensor = {"name": "texts", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}}
    text = json.dumps({"inputs": [tensor]}).encode()
    answer = infer(
        text_live,
        model="topics",
        content=text + element(b"ok") + element(b"\xff"),
        headers={"inference-header-content-length": str(len(text))},
    )
    assert error(answer, 422, "undecodable-text").startswith("input 'texts', element 1: ")
    long = {"name": "texts", "datatype": "BYTES", "shape": [1], "data": ["x" * 5001]}
    error(infer(text_live, {"inputs": [long]}, model="topics"), 413, "text-too-long")


def test_a_text_model_takes_no_pixels(text_live: Live) -> None:
    body = {"inputs": [PIXELS | {"name": "texts"}]}
    detail = error(infer(text_live, body, model="topics"), 422, "invalid-parameter")
    assert detail == "input 'texts': datatype 'UINT8' is not taken; send BYTES of shape [N] or [N, 1]"


def test_more_inputs_or_a_larger_body_than_allowed_are_413(live: Live) -> None:
    many = {"inputs": [IMAGE | {"shape": [33], "data": ["x"] * 33}]}
    assert "33 inputs, more than 32" in error(infer(live, many), 413, "too-many-inputs")
    error(infer(live, content=bytes(200_001)), 413, "body-too-large")


def test_an_unknown_content_coding_and_options_in_the_query_are_refused(live: Live) -> None:
    answer = infer(live, {"inputs": [IMAGE]}, headers={"content-encoding": "br"})
    error(answer, 415, "unsupported-media-type")
    answer = infer(live, {"inputs": [IMAGE]}, params={"alpha": "0.1"})
    assert error(answer, 422, "invalid-parameter").startswith("alpha: options go into the body's `parameters`")


def test_errors_without_a_route_have_the_format_of_the_protocol(live: Live) -> None:
    for path, kind in (
        ("/v2/models/none", "unknown-model"),
        ("/v2/models/none/ready", "unknown-model"),
        ("/v2/models/tiny/versions/9", "unknown-version"),
        ("/v2/models/tiny/config", "not-found"),
        ("/v2/health", "not-found"),
    ):
        error(live.client.get(path), 404, kind)
    error(infer(live, {"inputs": [IMAGE]}, model="none"), 404, "unknown-model")
    answer = live.client.get("/v2/models/tiny/infer")
    error(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "OPTIONS, POST"
