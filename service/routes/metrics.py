"""`GET /metrics`: the Prometheus text format, or OpenMetrics if the scraper asks for it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from service.http.route import Access, Route
from service.single_flight import SingleFlight
from service.telemetry.worker_metrics import WorkerMetrics

_ESCAPINGS = ("underscores", "allow-utf-8", "dots", "values")
_ACCEPTED = (
    "text/plain",
    "application/openmetrics-text",
    *(f"text/plain; version=1.0.0; escaping={escaping}" for escaping in _ESCAPINGS),
    *(f"application/openmetrics-text; version=1.0.0; escaping={escaping}" for escaping in _ESCAPINGS),
)
# Content type -> encoder. prometheus-client repeats any version that a client names in the content type.
_ENCODERS = {content_type: encode for encode, content_type in map(choose_encoder, _ACCEPTED)}


def routes(registry: CollectorRegistry, worker_metrics: WorkerMetrics | None = None) -> list[Route]:
    """The route; it serves the metrics of `registry`, or with `worker_metrics` those of all workers together."""

    async def render(encode: Callable[[Collector], bytes]) -> bytes:
        source = registry if worker_metrics is None else await worker_metrics.collect_all()
        return await asyncio.to_thread(encode, source)

    renderings = {
        content_type: SingleFlight[bytes](partial(render, encode)) for content_type, encode in _ENCODERS.items()
    }

    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        content_type = _content_type(request.headers.get("accept", ""))
        return Response(await renderings[content_type](), headers={"content-type": content_type})

    text: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}
    }
    return [
        Route(
            "/metrics",
            metrics,
            access=Access.OPEN,
            quiet=True,
            tags=["operations"],
            response_class=Response,
            responses=text,
        )
    ]


def _content_type(accept: str) -> str:
    """The format for a header `Accept`; the oldest text format for a version that this service does not write."""
    try:
        _, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # The version is no number.
        content_type = ""
    return content_type if content_type in _ENCODERS else CONTENT_TYPE_PLAIN_0_0_4
