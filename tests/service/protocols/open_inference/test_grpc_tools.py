"""The gRPC port for standard tools: health checks, reflection, and metadata that are not text. None needs a key."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from structlog.testing import capture_logs
from tritonclient import grpc as over_grpc
from tritonclient.utils import InferenceServerException

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, make_image_models, running_service
from tests.service.support.exposition import value
from tests.service.support.raw_http2 import call
from tests.support.waiting import until

INFERENCE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
KEY, ADMIN_KEY = "ood_a-key-for-tests", "ood_an-admin-key"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_image_models(root)
    return root


@pytest.fixture(scope="module")
def live(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that needs keys."""
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (("keys", KEY), ("admin", ADMIN_KEY)):
        (folder / name).write_text(f"tests sha256:{digest_of(key)}\n")
    keys = {"api_keys_file": folder / "keys", "admin_keys_file": folder / "admin"}
    with running_service(models, grpc_port=0, reload="admin", **keys) as service:
        yield service


def address(live: Live) -> str:
    return str(live.app.state.grpc_port.address)


@pytest.fixture
def channel(live: Live) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(live)) as connected:
        yield connected


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", INFERENCE, HEALTH])
def test_health_of_the_server_and_of_each_service_needs_no_key(channel: grpc.Channel, service: str) -> None:
    assert HealthStub(channel).Check(request(service)).status == SERVING
    assert next(iter(HealthStub(channel).Watch(request(service)))).status == SERVING


def test_the_health_of_an_unknown_service_is_not_found_and_a_watch_of_it_unknown(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        HealthStub(channel).Check(request("nope"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert f"there are {INFERENCE}, {HEALTH}" in raised.value.details()
    assert (
        next(iter(HealthStub(channel).Watch(request("nope")))).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    )


def test_a_drain_is_not_serving_at_once_and_ends_watches(models: Path) -> None:
    with running_service(models, grpc_port=0) as live, grpc.insecure_channel(address(live)) as channel:
        watch = iter(HealthStub(channel).Watch(request()))
        assert next(watch).status == SERVING
        live.app.state.lifecycle.drain()
        assert HealthStub(channel).Check(request()).status == NOT_SERVING
        assert next(watch).status == NOT_SERVING
        live.app.state.lifecycle.close()
        assert next(watch, None) is None


def test_watches_are_limited_and_a_closed_one_makes_room(live: Live) -> None:
    with grpc.insecure_channel(address(live)) as channel:
        stub = HealthStub(channel)
        watches = [stub.Watch(request()) for _ in range(64)]
        for watch in watches:
            assert next(iter(watch)).status == SERVING
        with pytest.raises(grpc.RpcError) as raised:
            next(iter(stub.Watch(request())))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.Check(request()).status == SERVING
        watches[0].cancel()

        def has_room() -> bool:
            try:
                return bool(next(iter(stub.Watch(request()))).status == SERVING)
            except grpc.RpcError:
                return False

        until(has_room)


@pytest.mark.parametrize("service", [REFLECTION, "grpc.reflection.v1.ServerReflection"])
def test_reflection_lists_and_describes_the_services_without_a_key(channel: grpc.Channel, service: str) -> None:
    method = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=INFERENCE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol"),
    ]
    listed, described, missing = method(iter(requests))
    assert [item.name for item in listed.list_services_response.service] == sorted([INFERENCE, HEALTH, REFLECTION])
    assert described.file_descriptor_response.file_descriptor_proto
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_client_that_knows_nothing_finds_the_methods_by_reflection(channel: grpc.Channel) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    methods = pool.FindServiceByName(INFERENCE).methods_by_name
    assert {"ServerLive", "ModelInfer", "ModelMetadata"} <= set(methods)
    assert methods["ModelInfer"].input_type.full_name == "inference.ModelInferRequest"


@pytest.mark.parametrize("path", [f"/{HEALTH}/Watch", f"/{REFLECTION}/ServerReflectionInfo"])
@pytest.mark.parametrize("message", [b"\xff", b"\x0a\xff\x7f", bytes(5000)])
def test_malformed_and_large_messages_of_streams_are_refused(channel: grpc.Channel, path: str, message: bytes) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(channel.stream_stream(path)(iter([message])))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_compressed_messages_of_streams_are_read_within_the_limits(live: Live) -> None:
    with grpc.insecure_channel(address(live), compression=grpc.Compression.Gzip) as channel:
        # Only messages that become smaller are sent compressed: an unknown field makes them large.
        padded = request(INFERENCE).SerializeToString() + b"\xfa\x7f\x80\x08" + bytes(1024)
        assert HealthStub(channel).Check(health_pb2.HealthCheckRequest.FromString(padded)).status == SERVING
        watch = channel.stream_stream(
            f"/{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        assert next(watch(iter([padded]))).status == SERVING
        with pytest.raises(grpc.RpcError) as raised:
            list(channel.stream_stream(f"/{HEALTH}/Watch")(iter([bytes(5000)])))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"\xff", grpc.StatusCode.INVALID_ARGUMENT), (bytes(5000), grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
def test_malformed_and_large_health_checks_are_refused(
    channel: grpc.Channel, message: bytes, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/{HEALTH}/Check")(message)
    assert raised.value.code() is code


def test_a_stream_without_a_message_ends(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.protocols.open_inference.grpc_streams.READ_SECONDS", 0.1)
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(30)
        yield b""

    with grpc.insecure_channel(address(live)) as channel:
        for path in (f"/{HEALTH}/Watch", f"/{REFLECTION}/ServerReflectionInfo"):
            with pytest.raises(grpc.RpcError) as raised:
                list(channel.stream_stream(path)(nothing()))
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        never.set()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x-note", "€".encode()),
        ("x-note", "\U0001f600".encode()),
        ("x-note", b"caf\xe9"),
        ("x-request-id", "€".encode()),
        ("x-request-id", b"\xff\xfe"),
        ("traceparent", b"00-\xff-01"),
        ("authorization", b"Bearer secret-\xe9"),
        ("x-api-key", b"secret-\xe9"),
        ("x-api-key", "secret-€".encode()),
        ("x-api-key", b"secret-\xc3\x28"),
    ],
)
def test_metadata_that_are_no_latin_text_are_counted_as_a_request_and_never_logged(
    live: Live, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], name: str, text: bytes
) -> None:
    counted = {"route": f"/{INFERENCE}/ModelInfer", "method": "POST", "status": "401"}
    before = value(live.client, "ood_http_requests_total", **counted)
    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        call(address(live), f"/{INFERENCE}/ModelInfer", b"", {name: text})
        until(lambda: value(live.client, "ood_http_requests_total", **counted) == before + 1)
    written = str(lines) + caplog.text + str(capfd.readouterr())
    assert "secret" not in written
    assert "Traceback" not in written
    assert "Invalid encoding" not in written


def test_a_fault_outside_of_the_application_is_an_internal_error(models: Path) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    with running_service(models, grpc_port=0) as live:
        server = live.app.state.grpc_port
        assert server is not None
        live.app.middleware_stack = broken
        with (
            capture_logs() as lines,
            over_grpc.InferenceServerClient(address(live)) as client,
            pytest.raises(InferenceServerException) as raised,
        ):
            client.is_server_live()
        assert raised.value.status() == "StatusCode.INTERNAL"
        assert raised.value.message() == "internal-error: The log has the traceback."
        assert [line["event"] for line in lines] == ["unexpected error"]


def test_the_repository_index_needs_an_admin_key(live: Live) -> None:
    with over_grpc.InferenceServerClient(address(live)) as client:
        for headers in ({}, {"x-api-key": KEY}):
            with pytest.raises(InferenceServerException) as raised:
                client.get_model_repository_index(headers=headers)
            assert raised.value.status() == "StatusCode.UNAUTHENTICATED"
        index = client.get_model_repository_index(headers={"x-api-key": ADMIN_KEY})
    assert [(model.name, model.version, model.state) for model in index.models] == [
        ("grey", "1", "READY"),
        ("tiny", "1", "READY"),
        ("tiny", "2", "READY"),
    ]
