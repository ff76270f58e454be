"""`POST /v1/models/{model}/score`: the service's own protocol."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InputError
from service.http.fast_routes import FastRoute
from service.inputs.payloads import Input
from service.pipeline import Pipeline, Result
from service.protocols.native.openapi import score_operation
from service.protocols.native.parsing import choose_parser
from service.repository.model import Model
from service.scoring.options import Options, parse_options, query_options
from service.settings import Settings


def routes(pipeline: Pipeline, settings: Settings) -> list[APIRoute]:
    """Scoring with the latest version of a model, and with a named one."""

    async def score(request: Request) -> Response:
        """Score images or texts. Several inputs of one request may share batches with those of others."""
        with pipeline.model(request) as model:
            # What can be refused is, in the order of what it costs: headers, query, queue, body.
            encoding = request.headers.get("content-encoding", "identity")
            content_type = request.headers.get("content-type")
            parse = choose_parser(content_type, encoding, model.modality, max_inputs=settings.max_inputs)
            query = query_options(request.query_params.multi_items()) if request.scope["query_string"] else {}
            options = parse_options(query, model.option_limits) if query else model.default_options
            submission = parse(await pipeline.body(request, model, options))
            if submission.options:
                options = parse_options(query | submission.options, model.option_limits)
            results = await pipeline.score(request, model, submission.inputs, options)
        return _answer(model, submission.inputs, results, options)

    return [
        FastRoute("/v1/models/{model}/score", score, methods=["POST"], **score_operation("latest version")),
        FastRoute(
            "/v1/models/{model}/versions/{version}/score",
            score,
            methods=["POST"],
            **score_operation("named version", version=True),
        ),
    ]


def _answer(model: Model, inputs: Sequence[Input], results: Sequence[Result], options: Options) -> Response:
    answers: list[dict[str, Any]] = []
    errors = 0
    for index, (item, result) in enumerate(zip(inputs, results, strict=True)):
        if isinstance(result, InputError):
            errors += 1
            answers.append({"index": index, "id": item.id, "error": {"type": result.type, "detail": result.detail}})
        else:
            answers.append({"index": index, "id": item.id, **result})
    content = {"model": model.name, "version": model.version, "results": answers, "errors": errors}
    if warnings := model.scorer.warnings(options):
        content["warnings"] = warnings
    return Response(orjson.dumps(content), media_type="application/json")
