"""A live service: the real server on a real socket, in a thread of the test process."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakValueDictionary

import httpx
import pytest
import structlog
from fastapi import FastAPI

from bundle import Bundle
from service import Settings, create_app
from service.inference.engine import Engine
from service.inference.engine_health import EngineHealth
from service.inference.engine_monitor import EngineMonitor
from service.inference.execution_plan import ExecutionMode, ExecutionPlan
from service.inference.local_engines import LocalEngines
from service.inference.providers import Provider
from service.inference.remote.server import EngineServer
from service.lifecycle import Phase
from service.server.server import Server
from service.worker_group import SINGLE_WORKER, WorkerGroup
from tests.service.support.replaceable_engine import ReplaceableEngine
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.support.waiting import until_async


@dataclass(frozen=True)
class Live:
    """A running service, and a client of it."""

    app: FastAPI
    client: httpx.Client
    port: int
    engines: Mapping[tuple[str, str], ReplaceableEngine]
    server: Server

    def engine(self, model: str = "tiny", version: str | None = None) -> ReplaceableEngine:
        """The engine of a served model."""
        served = self.app.state.repository.get(model, version)
        return self.engines[served.name, served.version]

    def score(self, content: bytes | None = None, model: str = "tiny", **request: Any) -> httpx.Response:
        """POST to the model's score route; `content` is sent as a PNG."""
        if content is not None:
            request = {"content": content, "headers": {"content-type": "image/png"}} | request
        return self.client.post(f"/v1/models/{model}/score", **request)


Serve = Callable[..., AbstractContextManager[Live]]


@contextmanager
def running_service(
    models: Path,
    *,
    inline: bool = False,
    engine_process: bool = False,
    seconds_per_input: float = 1e-3,
    **settings: Any,
) -> Iterator[Live]:
    """The service, with execution plans that do not depend on the speed of the machine.

    Args:
        models: The model repository.
        inline: Whether engines run on the event loop. Otherwise each runs on a thread, where tests can block it.
        engine_process: Whether engines run as in an engine process, on an event loop of their own behind a socket.
        seconds_per_input: The time per input that the service expects of every model at first.
        settings: The settings that are not their defaults.
    """

    # Weak references, so that tests see when an engine is freed.
    engines: WeakValueDictionary[tuple[str, str], ReplaceableEngine] = WeakValueDictionary()

    def open_engine(
        bundle: Bundle, provider: Provider, *, cores: int, max_batch: int, watch: Callable[[EngineMonitor], object]
    ) -> ReplaceableEngine:
        engine = ReplaceableEngine(bundle, provider, cores=cores)
        watch(engine.monitor)
        engine.warm_up(max_batch)
        engines[bundle.manifest.name, bundle.manifest.version] = engine
        return engine

    def plan_of(engine: Engine, max_batch: int, *_: object) -> ExecutionPlan:
        mode = ExecutionMode.INLINE if inline else ExecutionMode.EXCLUSIVE
        engine.set_mode(mode)
        return ExecutionPlan(max_batch, seconds_per_input, mode=mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.inference.local_engines.tune", plan_of)
        patch.setattr("service.inference.local_engines.open_engine", open_engine)
        configured = Settings(models=str(models), port=0, threads=1, max_batch=settings.pop("max_batch", 8), **settings)
        group = engine_server(configured) if engine_process else nullcontext(SINGLE_WORKER)
        with group as worker_group, _running(configured, worker_group, engines) as live:
            yield live


@contextmanager
def engine_server(settings: Settings) -> Iterator[WorkerGroup]:
    """Run the engine server on a thread of the test process. Yields the group of the worker that uses it."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        worker_group = WorkerGroup(folder=Path(folder), engine_process=True)
        listener.bind(str(worker_group.engine_socket))
        listener.listen()
        loop = asyncio.new_event_loop()
        health = EngineHealth(settings.stall_seconds, settings.stall_exit_seconds)

        async def serve() -> None:
            server = EngineServer(
                listener, settings, lambda: LocalEngines.of(settings, loop, health, worker_group), loop
            )
            task = asyncio.create_task(server.serve())
            await asyncio.to_thread(ended.wait)
            await until_async(lambda: not server.in_use)
            task.cancel()

        ended = threading.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        health.start()
        thread.start()
        try:
            yield worker_group
        finally:
            ended.set()
            thread.join()
            health.close()
            loop.close()


@contextmanager
def _running(
    configured: Settings, worker_group: WorkerGroup, engines: Mapping[tuple[str, str], ReplaceableEngine]
) -> Iterator[Live]:
    app = create_app(configured, worker_group)
    server = Server(app, configured, worker_group)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started or app.state.lifecycle.phase is Phase.STARTING:
            assert thread.is_alive(), "the server ended while starting"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Live(app, client, port, engines, server)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve() -> Serve:
    """`with serve(models, queue_size=4) as live:`"""
    return running_service


def make_image_models(root: Path) -> None:
    """`tiny` in versions 1 and 2 and the grey `grey`."""
    make_tiny_bundle(root)
    make_tiny_bundle(root, version="2", n_calibration=500, seed=1)
    make_tiny_bundle(root, name="grey", channels=1, labels=("light", "dark"))


def make_text_models(root: Path) -> None:
    """The classifier `topics` and the language model `words`."""
    make_tiny_text_bundle(root)
    make_tiny_text_bundle(root, name="words", task="language-model", sample=None)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `tiny` in versions 1 and 2 and the grey `grey`; read-only by convention."""
    root = tmp_path_factory.mktemp("models")
    make_image_models(root)
    return root


@pytest.fixture(scope="session", params=["threaded", "inline", "engine_process"])
def live(repository: Path, request: pytest.FixtureRequest) -> Iterator[Live]:
    """The service that most tests share: with engines on threads, on the event loop, and in an engine process."""
    with running_service(
        repository,
        inline=request.param == "inline",
        engine_process=request.param == "engine_process",
        max_inputs=32,
        max_body_bytes=200_000,
        max_pixels=1_000_000,
        queue_size=256,
    ) as service:
        yield service


@pytest.fixture(scope="session")
def text_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the text models `topics` and `words` (a language model) and the image model `tiny`."""
    root = tmp_path_factory.mktemp("texts")
    make_text_models(root)
    make_tiny_bundle(root)
    return root


@pytest.fixture(scope="session", params=["threaded", "engine_process"])
def text_live(text_repository: Path, request: pytest.FixtureRequest) -> Iterator[Live]:
    """The service that most tests of texts share: with engines on threads, and in an engine process."""
    engine_process = request.param == "engine_process"
    with running_service(
        text_repository, engine_process=engine_process, max_text_chars=5_000, max_inputs=64, max_body_bytes=200_000
    ) as service:
        yield service


@pytest.fixture
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the logging of the process after a test that calls `configure_logs`."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    configure = structlog.configure
    # A cached logger would keep the configuration for later tests.
    monkeypatch.setattr(structlog, "configure", lambda **how: configure(**{**how, "cache_logger_on_first_use": False}))
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
