"""The composition root: builds the application from its parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware

from service.auth.api_keys import KeyFile
from service.auth.middleware import Authentication
from service.http.allowed_hosts import AllowedHosts
from service.http.body import BodyBudget, BodyBudgetMiddleware
from service.http.cross_origin import CrossOrigin
from service.http.error_responses import ErrorResponses
from service.http.fast_routes import FastRoutes
from service.http.load_shedding import LoadShedder
from service.http.request_context import RequestContext
from service.http.route import Route
from service.inference.engine_health import EngineHealth
from service.inference.engines import Engines
from service.inference.local_engines import LocalEngines
from service.inference.remote.remote_engines import RemoteEngines
from service.inputs.decode_budget import DecodeBudget
from service.inputs.modality import Limits
from service.inputs.preprocessor import Preprocessor
from service.lifecycle import Lifecycle
from service.pipeline import Pipeline
from service.protocols.dependencies import Dependencies
from service.protocols.native import routes as native
from service.protocols.open_inference import rest as open_inference
from service.repository.model import model_loader
from service.repository.reloader import Reloader
from service.repository.served import Repository
from service.repository.shadow import Shadows
from service.routes import console, drift, health, models, openapi
from service.routes import metrics as metrics_route
from service.routes.page import asset_routes
from service.settings import Settings, SettingsError, env_name
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics
from service.telemetry.worker_metrics import WorkerMetrics
from service.worker_group import SINGLE_WORKER, WorkerGroup

if TYPE_CHECKING:
    from service.protocols.open_inference.grpc_server import GrpcServer
    from service.repository.remote import Mirror
    from service.telemetry.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)


def service_version() -> str:
    """The version of the installed package."""
    try:
        return version("ood-scoring-service")
    except PackageNotFoundError:
        return "from source"


def _key_file(settings: Settings, setting: str) -> KeyFile | None:
    file: Path | None = getattr(settings, setting)
    return None if file is None else KeyFile(file, setting=env_name(setting))


def _mirror(settings: Settings) -> "Mirror | None":
    if "://" not in settings.models:
        return None
    # Imported on demand: it takes long, and a local repository does not need it.
    from service.repository.remote import Mirror, default_folder  # noqa: PLC0415

    return Mirror(settings.models, settings.models_cache or default_folder(settings.models))


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.otlp_endpoint is None:
        return None
    # Imported on demand: the exporter of OpenTelemetry takes as long to import as everything else together.
    from service.telemetry.tracing import Tracing  # noqa: PLC0415

    return Tracing(settings.otlp_endpoint, service_version())


def _grpc(settings: Settings, dependencies: Dependencies) -> "tuple[list[Route], GrpcServer | None]":
    """The routes of gRPC calls, and the server that passes calls to them as requests."""
    if settings.grpc_port is None:
        return [], None
    try:
        # This import must come first: it sets grpc's options before grpc is imported, and fails with the right error if
        # grpc is missing.
        from service.protocols.open_inference.grpc_server import GrpcServer  # noqa: I001, PLC0415
        from service.protocols.open_inference import grpc_routes, grpc_streams  # noqa: PLC0415
    except ImportError as error:
        setting = f"{env_name('grpc_port')} = {settings.grpc_port}"
        raise SettingsError(f"{setting}: {error.name} is missing. Install the extra: pip install '.[grpc]'") from error
    routes = grpc_routes.routes(dependencies)
    streams = grpc_streams.StandardStreams(dependencies.lifecycle, grpc_routes.SERVICES)
    return routes, GrpcServer([route.path for route in routes], streams.handlers, settings)


async def _load_models(
    settings: Settings,
    worker_group: WorkerGroup,
    reloader: Reloader,
    lifecycle: Lifecycle,
    engine_health: EngineHealth,
    metrics: Metrics,
    worker_metrics: WorkerMetrics | None,
) -> None:
    """Load every model, then mark the service as ready and begin to watch the repository."""
    try:
        loop = asyncio.get_running_loop()
        engines: Engines = (
            RemoteEngines(worker_group.engine_socket, loop, engine_health)
            if worker_group.engine_process
            else LocalEngines.of(settings, loop, engine_health, worker_group)
        )
        lifecycle.problem = lambda: engines.problem
        await reloader.start(model_loader(settings, engines, metrics))
    except Exception as error:
        # Not raised: the server is listening already. It reads the failure from the lifecycle, and ends.
        lifecycle.fail(error)
    else:
        lifecycle.ready()
        if worker_metrics is not None:
            await worker_metrics.open()
        if settings.reload == "poll":
            reloader.poll(settings.reload_seconds)


def create_app(settings: Settings, worker_group: WorkerGroup = SINGLE_WORKER) -> FastAPI:
    """Create the ASGI application; its lifespan loads the models in the background.

    Args:
        settings: The settings of the service.
        worker_group: The processes that share this machine: each takes its share of the cores, and answers
            `GET /metrics` for all of them.

    Returns:
        The application. Its `state` holds `lifecycle`, `repository`, `metrics`, `grpc_port`, `load_shedder` and
        `engine_health` for the server.

    Raises:
        KeysError: A file of keys cannot be read.
        SettingsError: A setting needs an extra that is not installed.
    """
    keys, admin_keys = (_key_file(settings, setting) for setting in ("api_keys_file", "admin_keys_file"))
    mirror = _mirror(settings)
    repository = Repository(Path(settings.models) if mirror is None else mirror.folder)
    lifecycle, metrics = Lifecycle(), Metrics()
    engine_health = EngineHealth(settings.stall_seconds, settings.stall_exit_seconds)
    worker_metrics = (
        WorkerMetrics(worker_group, metrics.registry) if worker_group.count > 1 or worker_group.engine_process else None
    )
    reloader = Reloader(repository, metrics, mirror)
    limits = Limits(settings.max_pixels, settings.max_text_chars, DecodeBudget(settings.max_pixels))
    preprocessor = Preprocessor(
        limits,
        settings.decode_threads,
        max_request_pixels=settings.max_request_pixels,
        max_request_chars=settings.max_request_chars,
    )
    body_budget = BodyBudget(settings.max_pending_bytes)
    shadows = Shadows(limits, body_budget)
    tracing = _tracing(settings)
    access_log = AccessLog(metrics, enabled=settings.access_log)
    load_shedder = LoadShedder(repository, access_log, lifecycle, cross_origin=bool(settings.cors_origins))
    pipeline = Pipeline(repository, lifecycle, preprocessor, shadows, tracing, max_inputs=settings.max_inputs)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine_health.start()
        load = _load_models(settings, worker_group, reloader, lifecycle, engine_health, metrics, worker_metrics)
        loading = asyncio.create_task(load)
        if settings.listen_when_ready:
            # The server listens once the lifespan has started.
            await loading
        try:
            yield
        finally:
            await loading
            if worker_metrics is not None:
                worker_metrics.close()
            shadows.close()
            await reloader.close()
            preprocessor.close()
            engine_health.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    dependencies = Dependencies(
        repository, reloader, lifecycle, pipeline, load_shedder, settings, admin_keys, service_version()
    )
    grpc_calls, grpc_port = _grpc(settings, dependencies)
    # One line for each protocol.
    protocols: list[Route] = [
        *native.routes(dependencies),
        *open_inference.routes(dependencies),
        *grpc_calls,
    ]

    def document() -> dict[str, Any]:
        return openapi.document(app, repository, keys_needed=keys is not None)

    routes: list[Route] = [
        *protocols,
        *health.routes(lifecycle),
        *metrics_route.routes(metrics.registry, worker_metrics),
        *models.routes(repository, lifecycle),
        *console.routes(repository, lifecycle, keys_needed=keys is not None),
        *openapi.routes(repository, document),
        *asset_routes(),
    ]
    if admin_keys is not None:
        routes += drift.routes(repository, lifecycle, admin_keys)
    errors = ErrorResponses(routes)
    app = FastAPI(
        title="OOD Scoring Service",
        version=service_version(),
        description="Calibrated out-of-distribution scores of images and texts, at a false-flag rate that you choose.",
        lifespan=lifespan,
        routes=[*routes],
        # Own routes serve the document and its page.
        openapi_url=None,
        middleware=[
            *([Middleware(CrossOrigin, origins=settings.cors_origins)] if settings.cors_origins else []),
            Middleware(RequestContext, access_log=access_log, lifecycle=lifecycle, errors=errors, tracing=tracing),
            *(
                [Middleware(AllowedHosts, names=settings.allowed_hosts, errors=errors)]
                if settings.allowed_hosts
                else []
            ),
            *([] if keys is None else [Middleware(Authentication, keys=keys, routes=routes, errors=errors)]),
            Middleware(BodyBudgetMiddleware, budget=body_budget),
            Middleware(FastRoutes, routes=protocols),
        ],
        exception_handlers=errors.exception_handlers(),
        telemetry={"tracing": False, "metrics": False, "logs": False}
        if tracing is None
        else tracing.fastapi_config(frozenset(route.path for route in routes if route.quiet)),
        redirect_slashes=False,
    )
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way
    app.state.repository, app.state.lifecycle, app.state.metrics = repository, lifecycle, metrics
    app.state.grpc_port, app.state.load_shedder, app.state.engine_health = grpc_port, load_shedder, engine_health
    return app
