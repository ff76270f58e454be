"""The routes of the Open Inference Protocol (KServe V2) over REST, `/v2...`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import InvalidParameter
from service.http.body import read_body
from service.http.deadline import DISCONNECTED
from service.http.fast_routes import FastRoute
from service.http.request_id import REQUEST_ID
from service.http.route import Route
from service.lifecycle import Lifecycle
from service.protocols.dependencies import Dependencies
from service.protocols.open_inference.error_format import INFERENCE_ERROR
from service.protocols.open_inference.openapi import infer_operation
from service.protocols.open_inference.repository_extension import repository_routes
from service.protocols.open_inference.request import HEADER_LENGTH, parse_header_length, parse_inference, score
from service.protocols.open_inference.response import inference_response, model_metadata
from service.protocols.open_inference.schemas import (
    InferenceError,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from service.repository.served import Repository

_TAG = "open inference protocol"
_route = partial(Route, error_format=INFERENCE_ERROR, tags=[_TAG])


def routes(dependencies: Dependencies) -> list[Route]:
    """The routes of metadata, health and inference, and for admin keys those of the repository extension."""
    keys = dependencies.admin_keys
    extensions = ["binary_tensor_data", *([] if keys is None else ["model_repository"])]
    return [
        *_server(dependencies.lifecycle, dependencies.version, extensions),
        *_models(dependencies.repository, dependencies.lifecycle),
        *_inference(dependencies),
        *([] if keys is None else repository_routes(dependencies, keys)),
    ]


def _server(lifecycle: Lifecycle, version: str, extensions: list[str]) -> list[Route]:
    async def server() -> ServerMetadata:
        """The name and version of the server, and the extensions of the protocol that it has."""
        return ServerMetadata(name="ood-scoring-service", version=version, extensions=extensions)

    async def live() -> ServerLive:
        """200 while the process lives."""
        return ServerLive(live=True)

    async def ready() -> Response:
        """200 once every model is loaded and warm; 503 while starting or draining."""
        return _readiness(lifecycle, {})

    return [
        _route("/v2", server, name="server_metadata", responses=INFERENCE_ERROR.responses({})),
        _route("/v2/health/live", live, quiet=True, name="server_live", responses=INFERENCE_ERROR.responses({})),
        _route("/v2/health/ready", ready, quiet=True, name="server_ready", responses=_ready_responses(ServerReady)),
    ]


def _models(repository: Repository, lifecycle: Lifecycle) -> list[Route]:
    async def metadata(model: str) -> ModelMetadata:
        """The input and output tensors of the latest version of a model; -1 is the number of inputs."""
        lifecycle.require_loaded()
        return model_metadata(repository.get(model), repository.versions(model))

    async def version_metadata(model: str, version: str) -> ModelMetadata:
        """The input and output tensors of one version of a model; -1 is the number of inputs."""
        lifecycle.require_loaded()
        return model_metadata(repository.get(model, version), repository.versions(model))

    async def ready(model: str) -> Response:
        """200 if a model may get traffic."""
        lifecycle.require_loaded()
        return _readiness(lifecycle, {"name": repository.get(model).name})

    async def version_ready(model: str, version: str) -> Response:
        """200 if one version of a model may get traffic."""
        lifecycle.require_loaded()
        return _readiness(lifecycle, {"name": repository.get(model, version).name})

    def described(path: str, endpoint: Any) -> Route:
        errors = INFERENCE_ERROR.responses({404: "Unknown model or version.", 503: "Starting."})
        return _route(path, endpoint, response_model_exclude_none=True, responses=errors)

    def readiness(path: str, endpoint: Any) -> Route:
        return _route(path, endpoint, responses=_ready_responses(ModelReady))

    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return [
        described(model, metadata),
        described(version, version_metadata),
        readiness(f"{model}/ready", ready),
        readiness(f"{version}/ready", version_ready),
    ]


def _inference(dependencies: Dependencies) -> list[Route]:
    pipeline, load_shedder, settings = dependencies.pipeline, dependencies.load_shedder, dependencies.settings

    async def infer(request: Request) -> Response:
        """Score the inputs of one tensor. If one of them cannot be scored, the response is an error."""
        path, scope = request.path_params, request.scope
        version = path.get("version")
        with pipeline.model(path["model"], version, scope[REQUEST_ID]) as model:
            header_length = parse_header_length(request.headers.get(HEADER_LENGTH))
            for name in request.query_params if scope["query_string"] else ():
                raise InvalidParameter(name[:64], "options go into the body's `parameters`, not into the query")
            load_shedder.check(scope, model, version, model.option_limits.timeout_ms)
            inference = parse_inference(
                await read_body(request, settings.max_body_bytes, settings.receive_timeout_seconds),
                header_length,
                model.modality,
                model.option_limits,
                classifies=bool(model.scorer.labels),
                max_inputs=settings.max_inputs,
            )
            results = await score(
                pipeline, model, inference, disconnected=scope.get(DISCONNECTED), shadowed=version is None
            )
        return inference_response(model, inference, results)

    return [
        FastRoute(
            "/v2/models/{model}/infer", infer, methods=["POST"], tags=[_TAG], **infer_operation("latest version")
        ),
        FastRoute(
            "/v2/models/{model}/versions/{version}/infer",
            infer,
            methods=["POST"],
            tags=[_TAG],
            **infer_operation("named version", version=True),
        ),
    ]


def _readiness(lifecycle: Lifecycle, content: Mapping[str, str]) -> Response:
    ready = lifecycle.accepts_traffic
    return JSONResponse({**content, "ready": ready}, 200 if ready else 503)


def _ready_responses(answer: type[ServerReady]) -> dict[int | str, dict[str, Any]]:
    return INFERENCE_ERROR.responses({}) | {
        200: {"model": answer},
        503: {"model": answer | InferenceError, "description": "Starting, draining, or an engine is stalled."},
    }
