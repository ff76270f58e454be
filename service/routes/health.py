"""`GET /healthz` and `GET /readyz`: does the process live, may it get traffic."""

from typing import Any

from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from service.lifecycle import Lifecycle, Phase
from service.protocols.native.schemas import Status


def routes(lifecycle: Lifecycle) -> list[APIRoute]:
    """The probes of an orchestrator."""

    async def healthz() -> Response:
        """200 while the process lives."""
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        """200 once every model is loaded and warm; 503 while starting or draining."""
        ready = lifecycle.phase is Phase.READY
        return JSONResponse({"status": str(lifecycle.phase)}, 200 if ready else 503)

    unready: dict[int | str, dict[str, Any]] = {
        200: {"model": Status},
        503: {"model": Status, "description": "Starting or draining."},
    }
    return [
        APIRoute("/healthz", healthz, tags=["operations"], responses={200: {"model": Status}}),
        APIRoute("/readyz", readyz, tags=["operations"], responses=unready),
    ]
