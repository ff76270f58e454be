"""Starting and draining: when work is accepted and when it is rejected."""

import asyncio
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.errors import Draining, Starting
from service.lifecycle import Lifecycle, Phase
from service.settings import Settings
from tests.service.conftest import Serve
from tests.service.support.pictures import picture


def test_work_is_accepted_from_the_start_until_a_drain_closes() -> None:
    lifecycle = Lifecycle()
    with pytest.raises(Starting):
        lifecycle.require_loaded()
    lifecycle.ready()
    lifecycle.require_loaded()
    lifecycle.require_open()
    lifecycle.drain()
    lifecycle.ready()
    assert lifecycle.phase is Phase.DRAINING
    lifecycle.require_open()
    lifecycle.close()
    lifecycle.require_loaded()
    with pytest.raises(Draining):
        lifecycle.require_open()


def test_while_the_models_load_the_service_answers_503(repository: Path) -> None:
    async def scenario() -> tuple[httpx.Response, ...]:
        app = create_app(Settings(models=str(repository)))
        transport = httpx.ASGITransport(app)
        async with asyncio.timeout(60), httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return (
                await client.get("/healthz"),
                await client.get("/readyz"),
                await client.post("/v1/models/tiny/score", content=picture()),
                *[await client.get(f"/v2/{path}") for path in ("health/live", "health/ready", "models/tiny/ready")],
            )

    healthy, ready, scored, *open_inference = asyncio.run(scenario())
    assert (healthy.status_code, ready.status_code, scored.status_code) == (200, 503, 503)
    assert (scored.json()["type"], scored.headers["retry-after"]) == ("starting", "1")
    assert [response.status_code for response in open_inference] == [200, 503, 503]
    assert open_inference[1].json() == {"ready": False}


def test_a_service_that_listens_when_ready_is_ready_from_its_first_request(repository: Path) -> None:
    async def scenario() -> Phase:
        app = create_app(Settings(models=str(repository), listen_when_ready=True))
        async with asyncio.timeout(60), app.router.lifespan_context(app):
            phase: Phase = app.state.lifecycle.phase
            return phase

    assert asyncio.run(scenario()) is Phase.READY


def test_a_draining_service_first_answers_then_rejects_and_always_closes_connections(
    repository: Path, serve: Serve
) -> None:
    with serve(repository) as live:
        live.app.state.lifecycle.drain()
        response = live.score(picture())
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        live.app.state.lifecycle.close()
        response = live.score(picture())
        assert (response.status_code, response.json()["type"]) == (503, "draining")
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
        assert live.client.get("/readyz").json() == {"status": "draining"}
        ready = live.client.get("/v2/models/tiny/ready")
        assert (ready.status_code, ready.json()) == (503, {"name": "tiny", "ready": False})
        assert live.client.get("/healthz").status_code == 200
