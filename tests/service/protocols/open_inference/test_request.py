"""Bodies of the Open Inference Protocol to inputs and outputs: any bytes are parsed or raise a problem."""

import contextlib
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle import TextEncoder
from service.errors import InputError, Problem, TooManyInputs
from service.inputs.modality import Modality
from service.inputs.payloads import Base64, Pixels, Text
from service.inputs.texts import Texts
from service.protocols.open_inference.request import PARAMETERS, parse_header_length
from service.protocols.open_inference.tensors import binary, bytes_from_binary
from tests.service.conftest import Live
from tests.service.support.open_inference import IMAGES, SHAPE, parse
from tests.support.tiny_text_bundle import tiny_tokenizer

TEXTS = Texts(TextEncoder(tiny_tokenizer(), 8), 8)

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)


modalities = st.sampled_from([IMAGES, TEXTS])


@given(st.binary(max_size=200), st.none() | st.integers(0, 300), modalities)
def test_arbitrary_bytes_are_a_problem_or_an_inference(
    body: bytes, header_length: int | None, modality: Modality
) -> None:
    with contextlib.suppress(Problem):
        parse(body, header_length, modality)


@st.composite
def damaged_requests(draw: st.DrawFn) -> tuple[bytes, int | None, Modality, bool]:
    """A valid request with some changes: its body, the length of the JSON, the modality, and whether it is valid."""
    modality = draw(modalities)
    count = draw(st.integers(1, 4))
    tensor: dict[str, Any] = {"name": modality.tensor_name, "datatype": "BYTES", "shape": [count]}
    texts = ["a text", "YQ==", "", "\u2603"][:count]
    binary_tail = binary("BYTES", texts)
    if modality is IMAGES and draw(st.booleans()):
        binary_tail = bytes(math.prod(SHAPE) * count)
        tensor |= {"datatype": "UINT8", "shape": [count, *SHAPE], "data": list(binary_tail)}
    if in_binary := draw(st.booleans()):
        tensor |= {"parameters": {"binary_data_size": len(binary_tail)}, "data": None}
    else:
        binary_tail = b""
        tensor.setdefault("data", texts)
    content: dict[str, Any] = {
        "id": "x",
        "parameters": draw(
            st.sampled_from([{}, {"alpha": 0.1, "timeout_ms": 30_000}, {"scores": "all", PARAMETERS[-1]: True}])
        ),
        "inputs": [tensor],
        "outputs": draw(
            st.sampled_from([[], [{"name": "msp"}, {"name": "label", "parameters": {"binary_data": True}}]])
        ),
    }
    changes = draw(st.integers(0, 2))
    for _ in range(changes):
        _replace_member(draw, content)
    text = json.dumps(content).encode()
    length = len(text)
    if draw(st.integers(0, 4)) == 0:
        changes += 1
        length += draw(st.integers(-3, 3))
        binary_tail = binary_tail[draw(st.integers(0, 2)) :] + draw(st.binary(max_size=3))
    return text + binary_tail, length if in_binary else None, modality, not changes


def _replace_member(draw: st.DrawFn, node: Any) -> None:
    """Replace a member of `node`, at any depth, by an arbitrary value, or add one."""
    keys: list[Any] = list(range(len(node))) if isinstance(node, list) else [*node, "other"]
    if not keys:
        return
    key = draw(st.sampled_from(keys))
    inner = node[key] if isinstance(node, list) else node.get(key)
    if isinstance(inner, list | dict) and draw(st.booleans()):
        _replace_member(draw, inner)
    else:
        node[key] = draw(json_values)


@given(damaged_requests())
def test_a_damaged_request_is_a_problem_or_an_inference(
    request: tuple[bytes, int | None, Modality, bool],
) -> None:
    body, length, modality, valid = request
    try:
        inference = parse(body, length, modality)
    except Problem:
        assert not valid
        return
    assert 1 <= len(inference.inputs) <= 4
    for item in inference.inputs:
        assert isinstance(item.payload, bytes | Base64 | Pixels | Text | InputError)
        assert not isinstance(item.payload, Pixels) or item.payload.array.shape == modality.pixel_shape
    scores = inference.options.scores
    assert all(output.score is None or output.score in scores for output, _ in inference.outputs)


@settings(max_examples=50)
@given(damaged=damaged_requests())
def test_a_damaged_request_is_scored_or_answered_with_an_error(
    text_live: Live, damaged: tuple[bytes, int | None, Modality, bool]
) -> None:
    body, length, modality, _ = damaged
    model = {"images": "tiny", "texts": "topics"}[modality.tensor_name]
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    answer = text_live.client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
    assert answer.status_code == 200 or re.match("[a-z0-9-]+: .", answer.json()["error"])
    # A change may be a deadline of a millisecond.
    assert answer.status_code < 500 or answer.status_code == 504


@given(st.text(max_size=30) | st.integers().map(str))
def test_an_arbitrary_header_length_is_a_problem_or_a_number(value: str) -> None:
    with contextlib.suppress(Problem):
        length = parse_header_length(value)
        assert length is not None
        assert length >= 0


@given(st.lists(st.text(max_size=20), max_size=4))
def test_texts_survive_binary_tensor_data(texts: list[str]) -> None:
    data = memoryview(binary("BYTES", texts))
    assert bytes_from_binary("x", data, len(texts)) == [text.encode() for text in texts]


@given(st.binary(min_size=192, max_size=192), st.integers(1, 4), st.booleans())
def test_pixels_arrive_the_same_from_json_flat_or_nested_and_from_binary(data: bytes, count: int, nested: bool) -> None:
    images = np.stack([np.frombuffer(data, np.uint8).reshape(SHAPE) + np.uint8(index) for index in range(count)])
    tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": list(images.shape)}
    in_json = {"inputs": [tensor | {"data": images.tolist() if nested else images.ravel().tolist()}]}
    text = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": images.size}}]}).encode()
    for inference in (parse(json.dumps(in_json).encode()), parse(text + images.tobytes(), len(text))):
        payloads = [item.payload for item in inference.inputs]
        assert all(isinstance(payload, Pixels) for payload in payloads)
        assert np.array_equal([payload.array for payload in payloads if isinstance(payload, Pixels)], images)


@pytest.mark.parametrize("values", [b"{}," * 200_000, b"7," * 300_000, b"[" * 300_000])
def test_too_many_json_values_are_rejected_before_they_are_built(values: bytes) -> None:
    with pytest.raises(TooManyInputs, match="Send pixels as binary tensor data"):
        parse(b'{"inputs": [{"data": [' + values + b"1]}]}")
