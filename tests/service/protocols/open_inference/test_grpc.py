"""The Open Inference Protocol over gRPC: Triton's client gets the answers of the same client over HTTP."""

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from numpy.typing import NDArray
from structlog.testing import capture_logs
from tritonclient import grpc as over_grpc
from tritonclient import http as over_http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, make_image_models, make_text_models, running_service
from tests.service.support.engine_gate import EngineGate
from tests.service.support.exposition import value
from tests.service.support.pictures import declared_size, picture
from tests.service.support.texts import POLITICS, SPORTS
from tests.support.tiny_bundle import tiny_images
from tests.support.waiting import until

PICTURES = [picture("red"), picture("lime", (20, 30), "JPEG"), picture("gray", file_format="WEBP")]
TEXTS = [SPORTS, POLITICS, "naïve ☃ of the proof"]
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
KEY = "ood_a-key-for-tests"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` in versions 1 and 2, the grey `grey`, the text models `topics` and `words`."""
    root = tmp_path_factory.mktemp("models")
    make_image_models(root)
    make_text_models(root)
    return root


@pytest.fixture(scope="module")
def live(models: Path) -> Iterator[Live]:
    with running_service(models, grpc_port=0, max_inputs=32, max_body_bytes=200_000, max_pixels=1_000_000) as service:
        yield service


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[over_grpc.InferenceServerClient]:
    with over_grpc.InferenceServerClient(address(live)) as connected:
        yield connected


def address(live: Live) -> str:
    return str(live.app.state.grpc_port.address)


def tensor(name: str, data: NDArray[Any]) -> over_grpc.InferInput:
    return over_grpc.InferInput(name, list(data.shape), np_to_triton_dtype(data.dtype)).set_data_from_numpy(data)


def elements(values: Sequence[bytes | str]) -> NDArray[np.object_]:
    return np.array(values, dtype=np.object_)


def error(code: str, call: Callable[[], object]) -> str:
    """Assert that `call` fails with the status `code`, and return the message."""
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert raised.value.status() == f"StatusCode.{code}", raised.value
    return str(raised.value.message())


def send(live: Live, request: bytes, path: str = MODEL_INFER, **options: Any) -> grpc.Call:
    """The ended call with these bytes as its message."""
    with grpc.insecure_channel(address(live)) as channel:
        call = channel.unary_unary(path).future(request, **options)
        call.exception()
        return call


@pytest.mark.parametrize(
    ("model", "name", "data"),
    [
        ("tiny", "images", elements(PICTURES)),
        ("tiny", "images", elements(PICTURES).reshape(3, 1)),
        ("tiny", "images", tiny_images(5, channels=3, seed=3)),
        ("grey", "images", tiny_images(4, channels=1, seed=3)),
        ("topics", "texts", elements(TEXTS)),
        ("words", "texts", elements(TEXTS)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scores": "all"}, {"alpha": 0.2}, {"alpha": 0.0001}, {"threshold": 0.1}])
def test_scores_are_those_of_the_same_request_over_http(
    live: Live,
    client: over_grpc.InferenceServerClient,
    model: str,
    name: str,
    data: NDArray[Any],
    options: dict[str, Any],
) -> None:
    answer = client.infer(model, [tensor(name, data)], parameters=options, request_id="abc")
    with over_http.InferenceServerClient(f"127.0.0.1:{live.port}") as other:
        image = over_http.InferInput(name, list(data.shape), np_to_triton_dtype(data.dtype)).set_data_from_numpy(data)
        expected = other.infer(model, [image], parameters=options, request_id="abc")
    response, http_response = answer.get_response(as_json=True), expected.get_response()
    names = [output["name"] for output in http_response["outputs"]]
    assert [output["name"] for output in response["outputs"]] == names
    for output in names:
        assert answer.as_numpy(output).dtype == expected.as_numpy(output).dtype
        assert answer.as_numpy(output).tolist() == expected.as_numpy(output).tolist()
    assert (response["id"], response["model_version"]) == ("abc", http_response["model_version"])
    warnings = response.get("parameters", {}).get("warnings", {}).get("string_param")
    assert warnings == http_response.get("parameters", {}).get("warnings")


def test_data_in_contents_are_scored_as_raw_data(live: Live, client: over_grpc.InferenceServerClient) -> None:
    images = tiny_images(2, channels=3, seed=5)
    for fields, raw in (
        ({"datatype": "BYTES", "shape": [3], "contents": {"bytes_contents": PICTURES}}, elements(PICTURES)),
        ({"datatype": "UINT8", "shape": images.shape, "contents": {"uint_contents": images.ravel().tolist()}}, images),
    ):
        request = service_pb2.ModelInferRequest(model_name="tiny", inputs=[{"name": "images", **fields}])
        call = send(live, request.SerializeToString())
        expected = client.infer("tiny", [tensor("images", raw)]).get_response()
        assert service_pb2.ModelInferResponse.FromString(call.result()) == expected


def test_a_request_chooses_outputs_and_a_version(client: over_grpc.InferenceServerClient) -> None:
    outputs = [over_grpc.InferRequestedOutput(name) for name in ("energy", "flagged")]
    images = [tensor("images", elements(PICTURES))]
    answer = client.infer("tiny", images, model_version="1", outputs=outputs).get_response()
    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("energy", "FP32", [3]),
        ("flagged", "BOOL", [3]),
    ]
    assert answer.model_version == "1"


def test_health_and_metadata_are_those_of_http(live: Live, client: over_grpc.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata().name == "ood-scoring-service"
    expected = live.client.get("/v2/models/topics").json()
    assert client.get_model_metadata("topics") == ParseDict(expected, service_pb2.ModelMetadataResponse())


def test_unknown_models_versions_and_methods_are_not_found(live: Live, client: over_grpc.InferenceServerClient) -> None:
    images = [tensor("images", elements(PICTURES))]
    for call in (
        lambda: client.infer("none", images),
        lambda: client.infer("", images),
        lambda: client.is_model_ready("none"),
        lambda: client.get_model_metadata("none"),
    ):
        assert error("NOT_FOUND", call).startswith("unknown-model: No model ")
    assert error("NOT_FOUND", lambda: client.infer("tiny", images, model_version="9")).startswith("unknown-version: ")
    assert error("UNIMPLEMENTED", client.get_model_repository_index)
    assert send(live, b"", "/inference.GRPCInferenceService/ModelInfer/x").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": []}, "invalid-parameter: inputs: give a list of one tensor, 'images', that holds every input"),
        ({"inputs": [{"name": "images"}] * 2}, "invalid-parameter: inputs: give a list of one tensor, 'images'"),
        ({"raw_input_contents": []}, "input 'images': its data come 0 times; give them once, in raw_input_contents or"),
        ({"raw_input_contents": [b"", b""]}, "input 'images': its data come 2 times; give them once"),
        ({"contents": {"bytes_contents": [b"x"]}}, "input 'images': its data come 2 times; give them once"),
        (
            {"contents": {"fp32_contents": [1.0]}, "raw_input_contents": []},
            "input 'images': BYTES is not in fp32_contents; put it into bytes_contents",
        ),
        (
            {
                "datatype": "UINT8",
                "shape": [1, 8, 8, 3],
                "contents": {"uint_contents": [256] * 192},
                "raw_input_contents": [],
            },
            "input 'images': a value is no whole number from 0 to 255",
        ),
        ({"datatype": "UINT8", "shape": [1, 8, 8, 3]}, "shape [1, 8, 8, 3] is 192 bytes, not "),
        ({"datatype": "FP32"}, "input 'images': datatype 'FP32' is not taken; send BYTES of shape [N]"),
        ({"name": "x"}, "input 'x': this model's input is 'images'"),
        ({"shape": [-1]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"shape": [2]}, "input 'images': element 1 has no length"),
        ({"shape": [33]}, "too-many-inputs: input 'images': 33 inputs, more than 32 in one request."),
        ({"parameters": {"alhpa": {"double_param": 0.1}}}, "parameters.alhpa: no such parameter; there are alpha"),
        ({"parameters": {"alpha": {"double_param": float("nan")}}}, "alpha: nan is not a finite number"),
        ({"parameters": {"timeout_ms": {"uint64_param": 2**64 - 1}}, "shape": [0]}, "shape [0] does not fit"),
        ({"outputs": [{"name": "nope"}]}, "outputs: there is no output 'nope'; this model's outputs are flagged"),
        ({"outputs": [{"name": "msp"}] * 2}, "outputs: output 'msp' is asked for twice"),
        (
            {"outputs": [{"name": "msp", "parameters": {"shared_memory_region": {"string_param": "x"}}}]},
            "outputs.0.parameters.shared_memory_region: no such key; leave it out: this service has no shared memory",
        ),
        ({"id": "x" * 257}, "id: String should have at most 256 characters"),
        ({"raw_input_contents": [b"\0\0\0\0"]}, "empty-input: input 'images', element 0: "),
        ({"raw_input_contents": [b"\x02\0\0\0no"]}, "undecodable-image: input 'images', element 0: "),
    ],
)
def test_the_error_of_a_wrong_request_names_the_reason(live: Live, fields: dict[str, Any], message: str) -> None:
    raw = [len(PICTURES[0]).to_bytes(4, "little") + PICTURES[0]]
    image = {"name": "images", "datatype": "BYTES", "shape": [1]}
    image |= {key: field for key, field in fields.items() if key in ("name", "datatype", "shape", "contents")}
    request = {"inputs": [image], "raw_input_contents": raw} | {
        key: field for key, field in fields.items() if key not in image and key != "contents"
    }
    call = send(live, service_pb2.ModelInferRequest(model_name="tiny", **request).SerializeToString())
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in call.details()


def test_an_error_is_that_of_http_and_has_the_requests_id(live: Live, client: over_grpc.InferenceServerClient) -> None:
    files = elements([picture(), declared_size(30_000, 30_000)])
    message = error("INVALID_ARGUMENT", lambda: client.infer("tiny", [tensor("images", files)]))
    with (
        over_http.InferenceServerClient(f"127.0.0.1:{live.port}") as other,
        pytest.raises(InferenceServerException) as raised,
    ):
        other.infer("tiny", [over_http.InferInput("images", [2], "BYTES").set_data_from_numpy(files)])
    assert message == raised.value.message()
    assert message.startswith("image-too-large: input 'images', element 1: ")
    call = send(live, b"", metadata=[("x-request-id", "mine")])
    assert ("x-request-id", "mine") in call.trailing_metadata()


def test_bytes_that_are_no_message_are_malformed(live: Live) -> None:
    for body in (b"\xff", b"\x0a\x05ab", b"\x0a" + b"\xff" * 20, b"\x0a\x01\xff", b"\x00\x00"):
        call = send(live, body)
        assert (call.code(), call.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "malformed-body: The body is not a message inference.ModelInferRequest.",
        )


def test_a_message_that_is_too_large_is_rejected_by_its_header(client: over_grpc.InferenceServerClient) -> None:
    large = [tensor("images", elements([bytes(200_000)]))]
    assert "Received message larger than max" in error("RESOURCE_EXHAUSTED", lambda: client.infer("tiny", large))
    assert client.is_server_live()


COMPRESSIONS = [("gzip", grpc.Compression.Gzip), ("deflate", grpc.Compression.Deflate)]


@pytest.mark.parametrize(("algorithm", "compression"), COMPRESSIONS)
def test_compressed_calls_are_answered_like_plain_ones(
    live: Live, client: over_grpc.InferenceServerClient, algorithm: str, compression: grpc.Compression
) -> None:
    images = [tensor("images", np.zeros((30, 8, 8, 3), dtype=np.uint8))]
    expected = client.infer("tiny", images).get_response()
    assert client.infer("tiny", images, compression_algorithm=algorithm).get_response() == expected
    request = service_pb2.ModelInferRequest(model_name="tiny", raw_input_contents=[bytes(5760)])
    request.inputs.add(name="images", datatype="UINT8", shape=[30, 8, 8, 3])
    # A client that does not decompress receives the response as it is sent.
    for options, is_plain in (([], True), ([("grpc.per_message_decompression", 0)], False)):
        with grpc.insecure_channel(address(live), options, compression) as channel:
            answer = channel.unary_unary(MODEL_INFER)(request.SerializeToString())
        assert (answer == expected.SerializeToString()) == is_plain
        assert is_plain or len(answer) < expected.ByteSize()


@pytest.mark.parametrize(("algorithm", "compression"), COMPRESSIONS)
def test_a_message_that_is_too_large_once_decompressed_is_rejected(
    live: Live, client: over_grpc.InferenceServerClient, algorithm: str, compression: grpc.Compression
) -> None:
    assert "Received message" not in error(
        "RESOURCE_EXHAUSTED",
        lambda: client.infer("tiny", [tensor("images", elements([bytes(200_000)]))], compression_algorithm=algorithm),
    )
    call = send(live, bytes(20_000_000), compression=compression)
    assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call.details() == (
        "body-too-large: The body is larger than 200000 bytes. Send smaller inputs, or fewer per request."
    )


@pytest.mark.parametrize(
    "damaged",
    [gzip.compress(b"x" * 100)[:-9], zlib.compress(b"x" * 100)[:-1], b"\x1f\x8b"],
    ids=["gzip", "deflate", "head"],
)
def test_a_damaged_compressed_message_is_malformed(live: Live, damaged: bytes) -> None:
    call = send(live, damaged)
    assert (call.code(), str(call.details()).partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed-body")


def test_calls_are_counted_and_logged_like_requests(live: Live, client: over_grpc.InferenceServerClient) -> None:
    scored = value(live.client, "ood_inputs_total", model="grey", version="1")
    with capture_logs() as lines:
        client.infer("grey", [tensor("images", tiny_images(4, channels=1))], headers={"x-request-id": "mine"})
        until(lambda: any(line["event"] == "request" for line in lines))
    assert value(live.client, "ood_inputs_total", model="grey", version="1") == scored + 4
    route = {"route": MODEL_INFER, "method": "POST"}
    assert value(live.client, "ood_http_requests_total", **route, status="200") >= 1
    (line,) = [line for line in lines if line["event"] == "request" and line["path"] == MODEL_INFER]
    assert line["status"] == 200


def test_the_routes_of_calls_do_not_exist_over_http(live: Live) -> None:
    assert live.client.post(MODEL_INFER, content=b"").status_code == 404
    assert MODEL_INFER not in live.client.get("/openapi.json").text


def test_a_call_needs_a_key_before_its_message_is_read(models: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice sha256:{digest_of(KEY)}\n")
    with (
        running_service(models, grpc_port=0, api_keys_file=keys) as live,
        over_grpc.InferenceServerClient(address(live)) as client,
    ):
        images = [tensor("images", elements(PICTURES))]
        for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
            assert client.infer("tiny", images, headers=headers).as_numpy("flagged").shape == (3,)
        assert error("UNAUTHENTICATED", lambda: client.infer("tiny", images)).startswith("missing-key: ")
        missing = error("UNAUTHENTICATED", client.is_server_live)
        assert missing.startswith("missing-key: ")
        assert "`x-api-key: KEY`" in missing
        wrong = error("UNAUTHENTICATED", lambda: client.infer("tiny", images, headers={"x-api-key": "x"}))
        assert wrong.startswith("wrong-key: ")
        never = threading.Event()

        def nothing() -> Iterator[bytes]:
            never.wait(20)
            yield b""

        with grpc.insecure_channel(address(live)) as channel:
            call = channel.stream_unary(MODEL_INFER).future(nothing())
            assert call.exception(timeout=10).code() is grpc.StatusCode.UNAUTHENTICATED
            never.set()


def test_a_call_without_a_message_times_out(models: Path) -> None:
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(20)
        yield b""

    with (
        running_service(models, grpc_port=0, receive_timeout_seconds=0.2) as live,
        grpc.insecure_channel(address(live)) as channel,
    ):
        call = channel.stream_unary(MODEL_INFER).future(nothing())
        assert call.exception(timeout=10).details().startswith("request-timeout: ")
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        never.set()


def test_a_call_has_the_queue_the_deadlines_and_the_drain_of_a_request(models: Path) -> None:
    with (
        running_service(models, grpc_port=0, queue_size=1, max_inputs=1) as live,
        over_grpc.InferenceServerClient(address(live)) as client,
    ):
        gate = EngineGate(live)
        image = [tensor("images", elements(PICTURES[:1]))]
        pending = [client.async_infer("tiny", image, callback=lambda **answer: errors.append(answer["error"]))]
        errors: list[Any] = []
        gate.until_batches(1)
        # Its own deadline, then that of the call, while the one place of the queue is free.
        own = error("DEADLINE_EXCEEDED", lambda: client.infer("tiny", image, parameters={"timeout_ms": 50}))
        assert own.startswith("deadline-passed: The request was not scored within 50 ms")
        error("DEADLINE_EXCEEDED", lambda: client.infer("tiny", image, client_timeout=0.2))
        until(lambda: live.app.state.lifecycle.in_flight == 1)
        assert value(live.client, "ood_queue_depth", model="tiny") == 0
        pending.append(client.async_infer("tiny", image, callback=lambda **answer: errors.append(answer["error"])))
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 1)
        call = send(live, client_bytes(image))
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert call.details().startswith("overloaded: Model tiny is overloaded")
        assert int(dict(call.trailing_metadata())["retry-after"]) >= 1
        # A cancelled call leaves the queue.
        pending[1].cancel()
        until(lambda: value(live.client, "ood_queue_depth", model="tiny") == 0)
        live.app.state.lifecycle.drain()
        assert not client.is_server_ready()
        assert not client.is_model_ready("tiny")
        live.app.state.lifecycle.close()
        assert error("UNAVAILABLE", lambda: client.infer("tiny", image)).startswith("draining: ")
        gate.open()
        until(lambda: None in errors)


def client_bytes(inputs: Sequence[over_grpc.InferInput]) -> bytes:
    """The message that the client sends."""
    raw = [item._get_content() for item in inputs]
    tensors = [item._get_tensor() for item in inputs]
    request = service_pb2.ModelInferRequest(model_name="tiny", inputs=tensors, raw_input_contents=raw)
    return bytes(request.SerializeToString())


def test_the_deadline_of_a_call_is_that_of_its_request(models: Path) -> None:
    with (
        running_service(models, grpc_port=0, seconds_per_input=0.5) as live,
        over_grpc.InferenceServerClient(address(live)) as client,
    ):
        image = [tensor("images", elements(PICTURES[:1]))]
        assert client.is_server_live()
        # The queue is too long for a call that may take a second, and short enough for calls without a deadline.
        gate = EngineGate(live)
        errors: list[Any] = []
        for waiting in range(3):
            client.async_infer("tiny", image, callback=lambda **answer: errors.append(answer["error"]))
            # The engine has the first one: of several that come together it would take all.
            gate.until_batches(1)
            until(lambda waiting=waiting: value(live.client, "ood_queue_depth", model="tiny") == waiting)
        began = time.monotonic()
        message = error("UNAVAILABLE", lambda: client.infer("tiny", image, client_timeout=1))
        assert "the queue is 1.0 s long" in message
        assert time.monotonic() - began < 0.9
        gate.open()
        until(lambda: errors == [None] * 3)
