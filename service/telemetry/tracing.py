"""Traces: a span for each request, from FastAPI, and in it spans of where a scored one's time went."""

import time
from collections.abc import Iterable, MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service.inference.batcher import Row
from service.telemetry.access_log import PROBE_ROUTES

_EXPORT_SECONDS = 2


class Tracing:
    """Sends spans to an OpenTelemetry collector by OTLP over HTTP; `close` sends the rest.

    A request that comes with a `traceparent` header is a part of its sender's trace. Which requests are traced, how
    often spans are sent and as what service is said by OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`, ...).
    """

    def __init__(self, endpoint: str, version: str) -> None:
        """`endpoint` is the collector's base address, for example `http://collector:4318`."""
        resource = Resource.create({SERVICE_NAME: "ood-scoring-service", SERVICE_VERSION: version})
        self._provider = TracerProvider(resource=resource)
        # A collector that is away must not hold up the end of the process.
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(__name__)

    @property
    def of_requests(self) -> TelemetryConfig:
        """For `FastAPI(telemetry=...)`: spans alone; metrics and logs are ours, and probes would drown the rest."""
        return {
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": _is_quiet,
        }

    def scored(self, begun: float, prepared: float, rows: Iterable[Row]) -> None:
        """The spans `decode`, `queue` and, for each batch that the request's `rows` were in, `inference`.

        `begun` and `prepared` are `time.monotonic()` seconds; the span of the request is the current one.
        """
        if not trace.get_current_span().is_recording():
            return
        batches = sorted({(row.taken, row.done) for row in rows})
        times = [("decode", begun, prepared)]
        if batches:
            times.append(("queue", prepared, batches[0][0]))
        times += [("inference", taken, done) for taken, done in batches]
        # Spans are told in wall-clock time; what was measured is differences.
        offset = time.time_ns() - time.monotonic_ns()  # noqa: TID251
        for name, start, end in times:
            span = self._tracer.start_span(name, start_time=int(start * 1e9) + offset)
            span.end(int(end * 1e9) + offset)

    def trace_id(self) -> str | None:
        """The current request's trace, 32 hexadecimal digits, if it is traced."""
        span = trace.get_current_span()
        return trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None

    def routed(self, method: str, route: str) -> None:
        """Name the current request's span by its route's template, as FastAPI does for the routes that it finds."""
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)

    def close(self) -> None:
        """Send what is not sent yet; blocks, where the collector is away for seconds."""
        self._provider.shutdown()


def _is_quiet(scope: MutableMapping[str, Any]) -> bool:
    return scope["type"] != "http" or scope["path"] in PROBE_ROUTES
