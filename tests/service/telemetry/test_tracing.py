"""Traces: the spans that a collector receives by OTLP, and the trace id in logs and metrics."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from tritonclient.grpc import InferenceServerClient, InferInput

from tests.service.conftest import Serve
from tests.service.support.pictures import picture

PARENT_TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Collector:
    """The spans that an OTLP collector has received."""

    endpoint: str
    spans: list[Span] = field(default_factory=list)

    def named(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    kept.spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_scored_request_has_child_spans_for_decoding_queueing_and_inference(
    repository: Path, serve: Serve, collector: Collector
) -> None:
    with serve(repository, otlp_endpoint=collector.endpoint) as live:
        traceparent = f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"
        assert live.score(picture(), headers={"content-type": "image/png", "traceparent": traceparent}).is_success
    request = collector.named("POST /v1/models/{model}/score")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (PARENT_TRACE, PARENT_SPAN)
    attributes = {attribute.key: attribute.value for attribute in request.attributes}
    assert attributes["http.route"].string_value == "/v1/models/{model}/score"
    assert attributes["http.response.status_code"].int_value == 200
    parts = [collector.named(name) for name in ("decode", "queue", "inference")]
    assert {part.parent_span_id for part in parts} == {request.span_id}
    times = [time for part in parts for time in (part.start_time_unix_nano, part.end_time_unix_nano)]
    assert times == sorted(times)
    # The tolerance covers clocks that are read one after the other.
    assert request.start_time_unix_nano - 1_000_000 <= times[0]
    assert times[-1] <= request.end_time_unix_nano + 1_000_000


def test_a_grpc_call_joins_its_senders_trace(repository: Path, serve: Serve, collector: Collector) -> None:
    with serve(repository, otlp_endpoint=collector.endpoint, grpc_port=0) as live:
        files = np.array([picture()], dtype=np.object_)
        images = [InferInput("images", [1], "BYTES").set_data_from_numpy(files)]
        with InferenceServerClient(live.app.state.grpc_port.address) as client:
            client.infer("tiny", images, headers={"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"})
    call = collector.named("POST /inference.GRPCInferenceService/ModelInfer")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (PARENT_TRACE, PARENT_SPAN)
    assert collector.named("inference").parent_span_id == call.span_id


def test_the_trace_id_is_in_the_logs_and_is_an_exemplar_of_the_latency(
    repository: Path, serve: Serve, collector: Collector
) -> None:
    with serve(repository, otlp_endpoint=collector.endpoint) as live:
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        with capture_logs([merge_contextvars]) as lines:
            live.score(picture())
            # A second request on the same event loop: the first one's line is written before its answer.
            metrics = live.client.get("/metrics", headers=accept).text
    trace = collector.named("POST /v1/models/{model}/score").trace_id.hex()
    assert trace in {line.get("trace_id") for line in lines}
    assert f'# {{trace_id="{trace}"}}' in metrics


def test_probes_are_not_traced_and_without_a_collector_nothing_is(
    repository: Path, serve: Serve, collector: Collector
) -> None:
    with serve(repository, otlp_endpoint=collector.endpoint) as live:
        for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
            live.client.get(path)
        live.client.get("/nowhere")
    assert [span.name for span in collector.spans] == ["GET other"]
    with serve(repository) as live:
        live.score(picture())
    assert len(collector.spans) == 1


def test_requests_are_answered_while_the_collector_is_unreachable(repository: Path, serve: Serve) -> None:
    with serve(repository, otlp_endpoint="http://127.0.0.1:9") as live:
        assert live.score(picture()).is_success
