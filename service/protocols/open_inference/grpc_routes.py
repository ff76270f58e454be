"""The routes of gRPC calls: the Open Inference Protocol (KServe V2), and the health check of gRPC.

`GrpcServer` turns each call into a request to one of them.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope
from tritonclient.grpc import service_pb2

from service.auth.middleware import admin_dependency
from service.errors import MalformedBody, NotFound
from service.http.body import read_body
from service.http.fast_routes import FastRoute
from service.http.request_id import REQUEST_ID
from service.http.route import Access, Route
from service.protocols.dependencies import Dependencies
from service.protocols.open_inference.error_format import INFERENCE_ERROR
from service.protocols.open_inference.grpc_messages import (
    inference_message,
    metadata_message,
    parse_message,
    read_message,
)
from service.protocols.open_inference.grpc_server import DEADLINE
from service.protocols.open_inference.grpc_streams import HEALTH, MAX_BYTES, READ_SECONDS, serving_status
from service.protocols.open_inference.repository_extension import index_entries
from service.protocols.open_inference.request import score
from service.protocols.open_inference.response import model_metadata
from service.scoring.options import OptionLimits

SERVICES = (service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name, HEALTH)
"""The names of the gRPC services."""

_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class _Rpc(FastRoute):
    """A route that matches gRPC calls only, not HTTP requests."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a call by its path (Starlette's hook)."""
        return super().matches(scope) if DEADLINE in scope else (Match.NONE, {})


def routes(dependencies: Dependencies) -> list[Route]:
    """The routes of health, metadata and inference, and with admin keys that of the repository's index."""
    repository, lifecycle, settings = dependencies.repository, dependencies.lifecycle, dependencies.settings

    async def live(_: Request, __: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    async def ready(_: Request, __: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=lifecycle.accepts_traffic)

    async def model_ready(_: Request, message: Any) -> Any:
        lifecycle.require_loaded()
        repository.get(message.name, message.version or None)
        return service_pb2.ModelReadyResponse(ready=lifecycle.accepts_traffic)

    async def server(_: Request, __: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="ood-scoring-service", version=dependencies.version)

    async def metadata(_: Request, message: Any) -> Any:
        lifecycle.require_loaded()
        model = repository.get(message.name, message.version or None)
        return metadata_message(model_metadata(model, repository.versions(message.name)))

    async def infer(request: Request, message: Any) -> Any:
        version = message.model_version or None
        with dependencies.pipeline.model(message.model_name, version, request.scope[REQUEST_ID]) as model:
            inference = parse_message(
                message,
                model.modality,
                _limited_by(model.option_limits, request.scope[DEADLINE]),
                classifies=bool(model.scorer.labels),
                max_inputs=settings.max_inputs,
            )
            # gRPC cancels the call when its client disconnects.
            results = await score(dependencies.pipeline, model, inference, disconnected=None, shadowed=version is None)
        return inference_message(model, inference, results)

    async def index(request: Request, message: Any) -> Any:
        assert dependencies.admin_keys is not None, "the call exists with admin keys only"
        await admin_dependency(dependencies.admin_keys)(request)
        lifecycle.require_loaded()
        entries = index_entries(repository, dependencies.reloader, ready=message.ready)
        return service_pb2.RepositoryIndexResponse(models=[entry.model_dump() for entry in entries])

    def rpc(
        name: str,
        answer: Callable[[Request, Any], Awaitable[Any]],
        *,
        quiet: bool = False,
        access: Access = Access.API_KEY,
    ) -> Route:
        # Looked up once, not for each request.
        kind = getattr(service_pb2, _SERVICE.methods_by_name[name].input_type.name)

        async def endpoint(request: Request) -> Response:
            body = await read_body(request, settings.max_body_bytes, settings.receive_timeout_seconds)
            pixels = max((math.prod(model.modality.pixel_shape or (0,)) for model in repository), default=0)
            message = read_message(kind, body, max_inputs=settings.max_inputs, pixels=pixels)
            return Response((await answer(request, message)).SerializeToString())

        return _Rpc(
            f"/{_SERVICE.full_name}/{name}",
            endpoint,
            methods=["POST"],
            error_format=INFERENCE_ERROR,
            access=access,
            quiet=quiet,
            include_in_schema=False,
        )

    async def check_health(request: Request) -> Response:
        body = await read_body(request, MAX_BYTES, READ_SECONDS)
        try:
            service = health_pb2.HealthCheckRequest.FromString(body).service
        except DecodeError:
            raise MalformedBody("The body is not a message grpc.health.v1.HealthCheckRequest.") from None
        status = serving_status(lifecycle, service, SERVICES)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound(f"There is no service {service[:64]!r}; there are {', '.join(SERVICES)}.")
        return Response(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    return [
        # Infrastructure checks health without a key, as it does /readyz.
        _Rpc(
            f"/{HEALTH}/Check",
            check_health,
            methods=["POST"],
            error_format=INFERENCE_ERROR,
            access=Access.OPEN,
            quiet=True,
            include_in_schema=False,
        ),
        rpc("ServerLive", live, quiet=True),
        rpc("ServerReady", ready, quiet=True),
        rpc("ModelReady", model_ready, quiet=True),
        rpc("ServerMetadata", server),
        rpc("ModelMetadata", metadata),
        rpc("ModelInfer", infer),
        *([] if dependencies.admin_keys is None else [rpc("RepositoryIndex", index, access=Access.ADMIN_KEY)]),
    ]


def _limited_by(option_limits: OptionLimits, deadline: float | None) -> OptionLimits:
    """`option_limits` with a timeout that ends by the `deadline` of the call, on the clock of the event loop."""
    if deadline is None:
        return option_limits
    milliseconds = max(1, int(1000 * (deadline - asyncio.get_running_loop().time())))
    return replace(option_limits, timeout_ms=min(option_limits.timeout_ms, milliseconds))
