"""`POST /v1/models/{model}/score`: the service's own protocol."""

from collections.abc import Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InputError
from service.http.body import read_body
from service.http.deadline import DISCONNECTED
from service.http.fast_routes import FastRoute
from service.http.request_id import REQUEST_ID
from service.http.route import Route
from service.inputs.payloads import Input
from service.protocols.dependencies import Dependencies
from service.protocols.native.openapi import score_operation
from service.protocols.native.parsing import choose_parser
from service.repository.model import Model
from service.scoring.options import Options, parse_options, query_options
from service.scoring.scored_input import Result, ScoredInput


def routes(dependencies: Dependencies) -> list[Route]:
    """The routes that score with the latest version of a model, and with a named one."""
    pipeline, load_shedder, settings = dependencies.pipeline, dependencies.load_shedder, dependencies.settings

    async def score(request: Request) -> Response:
        """Score images or texts. Several inputs of one request may share batches with those of others."""
        path, scope = request.path_params, request.scope
        version = path.get("version")
        with pipeline.model(path["model"], version, scope[REQUEST_ID]) as model:
            # Checks come in the order of their costs: headers, query, queue, body.
            content_type = request.headers.get("content-type")
            parse = choose_parser(content_type, model.modality, max_inputs=settings.max_inputs)
            query = query_options(request.query_params.multi_items()) if scope["query_string"] else {}
            options = parse_options(query, model.option_limits) if query else model.default_options
            load_shedder.check(scope, model, version, options.timeout_ms)
            body = parse(await read_body(request, settings.max_body_bytes, settings.receive_timeout_seconds))
            if body.options:
                options = parse_options(query | body.options, model.option_limits)
            results = await pipeline.score(
                model, body.inputs, options, disconnected=scope.get(DISCONNECTED), shadowed=version is None
            )
        return _response(model, body.inputs, results, options)

    return [
        FastRoute("/v1/models/{model}/score", score, methods=["POST"], **score_operation("latest version")),
        FastRoute(
            "/v1/models/{model}/versions/{version}/score",
            score,
            methods=["POST"],
            **score_operation("named version", version=True),
        ),
    ]


def _response(model: Model, inputs: Sequence[Input], results: Sequence[Result], options: Options) -> Response:
    bodies: list[dict[str, object]] = []
    errors = 0
    for index, (item, result) in enumerate(zip(inputs, results, strict=True)):
        if isinstance(result, InputError):
            errors += 1
            bodies.append({"index": index, "id": item.id, "error": {"type": result.type, "detail": result.detail}})
        else:
            bodies.append(_scored_body(index, item.id, result))
    content: dict[str, object] = {"model": model.name, "version": model.version, "results": bodies, "errors": errors}
    if warnings := model.scorer.warnings(options):
        content["warnings"] = warnings
    return Response(orjson.dumps(content), media_type="application/json")


def _scored_body(index: int, input_id: str | None, result: ScoredInput) -> dict[str, object]:
    # Not by orjson, which takes twice as long for slotted dataclasses: see docs/performance.md.
    prediction = result.prediction
    body: dict[str, object] = {
        "index": index,
        "id": input_id,
        "flagged": result.flagged,
        "p_value": result.p_value,
        "prediction": None
        if prediction is None
        else {"label": prediction.label, "index": prediction.index, "probability": prediction.probability},
        "scores": {
            name: {
                "value": score.value,
                "anomaly": score.anomaly,
                "threshold": score.threshold,
                "p_value": score.p_value,
                "flagged": score.flagged,
            }
            for name, score in result.scores.items()
        },
    }
    if result.tokens is not None and result.tokens.truncated:
        body |= {
            "truncated": True,
            "tokens_read": result.tokens.read,
            "tokens_total": result.tokens.total,
            "tokens_total_exact": result.tokens.exact,
        }
    if result.explanation is not None:
        body["explanation"] = result.explanation
    if result.neighbours is not None:
        body["neighbours"] = result.neighbours
    return body
