"""gRPC messages of the Open Inference Protocol: any bytes are parsed or raise a problem."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from service.errors import MalformedBody, Problem, TooManyInputs
from service.inputs.modality import Modality
from service.protocols.open_inference.grpc_messages import parse_message, read_message
from service.protocols.open_inference.request import Inference
from tests.service.support.open_inference import IMAGES, OPTION_LIMITS, SHAPE, parse

KINDS = [service_pb2.ModelInferRequest, service_pb2.ModelReadyRequest, service_pb2.ServerLiveRequest]


def read(body: bytes, kind: Any = service_pb2.ModelInferRequest) -> Any:
    return read_message(kind, body, max_inputs=4, pixels=math.prod(SHAPE))


def parse_body(body: bytes, modality: Modality = IMAGES) -> Inference:
    return parse_message(read(body), modality, OPTION_LIMITS, classifies=True, max_inputs=4)


numbers = st.lists(st.integers(0, 300), max_size=4)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["images", "x"]),
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32", ""]),
        "shape": st.lists(st.sampled_from([-1, 0, 1, 2, 8, 3, 2**62]), max_size=9),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "x"]), st.just({"int64_param": 3}) | st.just({}), max_size=2
        ),
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "bytes_contents": st.lists(st.binary(max_size=4), max_size=4),
                "uint_contents": numbers,
                "int64_contents": numbers,
                "fp32_contents": st.lists(st.floats(width=32), max_size=4),
            },
        ),
    },
)
parameters = st.dictionaries(
    st.sampled_from(["alpha", "scores", "timeout_ms", "binary_data_output", "alhpa"]),
    st.sampled_from(
        [
            {"double_param": 0.1},
            {"int64_param": 30},
            {"string_param": "all"},
            {"bool_param": True},
            {"uint64_param": 1},
            {},
        ]
    ),
    max_size=3,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "model_name": st.text(max_size=3),
        "id": st.text(max_size=3),
        "parameters": parameters,
        "inputs": st.lists(tensors, max_size=2),
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["msp", "energy", "label", "x"])}), max_size=3
        ),
        "raw_input_contents": st.lists(st.binary(max_size=8), max_size=2),
    },
)


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_arbitrary_bytes_are_a_problem_or_a_message(body: bytes, kind: Any) -> None:
    with contextlib.suppress(Problem):
        assert isinstance(read(body, kind), kind)


@given(requests)
def test_an_arbitrary_request_is_a_problem_or_an_inference(content: dict[str, Any]) -> None:
    body = service_pb2.ModelInferRequest(**content).SerializeToString()
    with contextlib.suppress(Problem):
        assert 1 <= len(parse_body(body).inputs) <= 4


@given(requests, st.data())
def test_a_damaged_request_is_a_problem_or_an_inference(content: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(service_pb2.ModelInferRequest(**content).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Problem):
        parse_body(bytes(body))


@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=4),
    st.sampled_from([{}, {"alpha": 0.1, "timeout_ms": 30}, {"scores": "all"}]),
    st.sampled_from([[], ["msp"], ["label", "energy.p_value"]]),
    st.booleans(),
)
def test_a_message_is_read_as_the_same_request_in_json(
    files: list[bytes], options: dict[str, Any], outputs: list[str], raw: bool
) -> None:
    data = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    tensor: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": [len(files)]}
    kinds = {float: "double_param", int: "int64_param", str: "string_param"}
    message = service_pb2.ModelInferRequest(
        id="a",
        inputs=[tensor if raw else tensor | {"contents": {"bytes_contents": files}}],
        raw_input_contents=[data] if raw else [],
        outputs=[{"name": name} for name in outputs],
        parameters={name: {kinds[type(option)]: option} for name, option in options.items()},
    )
    content = {
        "id": "a",
        "inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": name} for name in outputs],
        "parameters": options,
    }
    text = json.dumps(content).encode()
    assert parse_body(message.SerializeToString()) == parse(text + data, len(text))


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": [{}] * 2_000},
        {"outputs": [{}] * 2_000},
        {"inputs": [{"contents": {"bytes_contents": [b""] * 2_000}}]},
        {"inputs": [{"contents": {"uint_contents": [1] * 50_000}}]},
        {"inputs": [{"shape": [1] * 50_000}]},
        {"parameters": {str(index): {} for index in range(2_000)}},
        {"raw_input_contents": [b""] * 2_000},
    ],
)
def test_too_many_values_in_a_message_are_rejected_before_they_are_built(fields: dict[str, Any]) -> None:
    body = service_pb2.ModelInferRequest(**fields).SerializeToString()
    with pytest.raises(TooManyInputs, match="Send pixels in raw_input_contents"):
        read(body)


def test_pixels_of_every_input_fit_a_message() -> None:
    pixels = math.prod(SHAPE)
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": [4, *SHAPE],
        "contents": {"uint_contents": [255] * 4 * pixels},
    }
    assert len(parse_body(service_pb2.ModelInferRequest(inputs=[tensor]).SerializeToString()).inputs) == 4


def test_a_length_without_an_end_is_malformed() -> None:
    with pytest.raises(MalformedBody, match=r"not a message inference\.ModelInferRequest"):
        read(b"\x3a" + b"\xff" * 1_000_000)
