"""`GET /metrics`: the Prometheus text format, or OpenMetrics where the scraper asks for it."""

from typing import Any

from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response


def routes(registry: CollectorRegistry) -> list[APIRoute]:
    """The metrics of `registry`."""

    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    text: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}
    }
    return [APIRoute("/metrics", metrics, tags=["operations"], response_class=Response, responses=text)]
