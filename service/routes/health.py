"""The probes `GET /healthz` (the process lives) and `GET /readyz` (it may get traffic)."""

from typing import Any

from starlette.responses import JSONResponse, Response

from service.http.route import Access, Route
from service.lifecycle import Lifecycle, Phase
from service.routes.schemas import Status


def routes(lifecycle: Lifecycle) -> list[Route]:
    """The routes for the probes of an orchestrator."""

    async def healthz() -> Response:
        """200 while the process lives."""
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        """200 once every model is loaded and warm; 503 while starting or draining, or if an engine is stalled."""
        if lifecycle.phase is Phase.READY and (problem := lifecycle.problem()) is not None:
            return JSONResponse({"status": "stalled", "reason": problem}, 503)
        return JSONResponse({"status": str(lifecycle.phase)}, 200 if lifecycle.phase is Phase.READY else 503)

    alive: dict[int | str, dict[str, Any]] = {200: {"model": Status}}
    ready_or_not: dict[int | str, dict[str, Any]] = {
        200: {"model": Status},
        503: {"model": Status, "description": "Starting, draining, or an engine is stalled."},
    }
    return [
        Route("/healthz", healthz, access=Access.OPEN, quiet=True, tags=["operations"], responses=alive),
        Route("/readyz", readyz, access=Access.OPEN, quiet=True, tags=["operations"], responses=ready_or_not),
    ]
