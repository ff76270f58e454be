"""`GET /metrics`: the Prometheus text format, or OpenMetrics if the scraper asks for it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from service.http.route import Access, Route
from service.single_flight import SingleFlight
from service.telemetry.worker_metrics import WorkerMetrics


def routes(registry: CollectorRegistry, worker_metrics: WorkerMetrics | None = None) -> list[Route]:
    """The route; it serves the metrics of `registry`, or with `worker_metrics` those of all workers together."""

    # One for each format.
    renderings: dict[str, SingleFlight[bytes]] = {}

    async def render(encode: Callable[[Collector], bytes]) -> bytes:
        source = registry if worker_metrics is None else await worker_metrics.collect_all()
        return await asyncio.to_thread(encode, source)

    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        rendering = renderings.setdefault(content_type, SingleFlight(partial(render, encode)))
        return Response(await rendering(), headers={"content-type": content_type})

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
