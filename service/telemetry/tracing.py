"""OpenTelemetry traces: FastAPI's span for each request, with child spans for the stages of scoring."""

import time
from collections.abc import Collection, Iterable, MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service.inference.outcomes import Row

_EXPORT_SECONDS = 2


class Tracing:
    """Sends spans to an OpenTelemetry collector by OTLP over HTTP; `close` sends the remaining ones.

    A request with a `traceparent` header joins its sender's trace. OpenTelemetry's own variables
    (`OTEL_TRACES_SAMPLER`, ...) set the sampling, the export interval and the service's name.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        """Start the exporter.

        Args:
            endpoint: The collector's base address, for example `http://collector:4318`.
            version: The version of the service.
        """
        resource = Resource.create({SERVICE_NAME: "ood-scoring-service", SERVICE_VERSION: version})
        self._provider = TracerProvider(resource=resource)
        # The timeout is short: an unreachable collector must not delay the end of the process.
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(__name__)

    def fastapi_config(self, quiet_paths: Collection[str]) -> TelemetryConfig:
        """The argument of `FastAPI(telemetry=...)`: one span for each request except to `quiet_paths`."""

        def is_excluded(scope: MutableMapping[str, Any]) -> bool:
            return scope["type"] != "http" or scope["path"] in quiet_paths

        return {
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": is_excluded,
        }

    def record_scoring(self, started: float, prepared: float, rows: Iterable[Row]) -> None:
        """Add child spans `decode`, `queue` and, for each batch, `inference` to the current request's span.

        Args:
            started: When decoding started, in `time.monotonic()` seconds.
            prepared: When all inputs were decoded, in `time.monotonic()` seconds.
            rows: The request's outputs; they name the batches.
        """
        if not trace.get_current_span().is_recording():
            return
        batches = sorted({(row.started, row.finished) for row in rows})
        times = [("decode", started, prepared)]
        if batches:
            times.append(("queue", prepared, batches[0][0]))
        times += [("inference", taken, done) for taken, done in batches]
        # Spans have wall-clock times; the measurements are monotonic.
        offset = time.time_ns() - time.monotonic_ns()  # noqa: TID251
        for name, start, end in times:
            span = self._tracer.start_span(name, start_time=int(start * 1e9) + offset)
            span.end(int(end * 1e9) + offset)

    def trace_id(self) -> str | None:
        """The id of the current request's trace, 32 hexadecimal digits; None if it is not traced."""
        span = trace.get_current_span()
        return trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None

    def name_span(self, method: str, route: str) -> None:
        """Name the current request's span after its route's template, as FastAPI does for its own routes."""
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)

    def close(self) -> None:
        """Send the remaining spans. Blocks, for seconds if the collector is unreachable."""
        self._provider.shutdown()
