"""`POST /v1/models/{model}/score`: the one way of a request through the service."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.batcher import Array, Expired, Outcome, Places, QueueFull, Row
from service.body import read_body
from service.explanation import PARTS
from service.hangup import CancelOnHangup
from service.inputs import Preparer
from service.lifecycle import Lifecycle
from service.metrics import REJECTIONS
from service.modalities import Prepared
from service.model import Model
from service.openapi import score_operation
from service.options import Options, parse_options, query_options
from service.parsing import Submission, choose_parser
from service.payloads import Input
from service.problems import DeadlinePassed, InferenceFailed, InputError, InvalidInput, Overloaded, Problem
from service.repository import Repository
from service.settings import Settings


class _Direct(APIRoute):
    """A route whose endpoint takes the request as it is: nothing to resolve, nothing to validate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom routes."""
        return self.endpoint


def routes(repository: Repository, lifecycle: Lifecycle, preparer: Preparer, settings: Settings) -> list[APIRoute]:
    """Scoring with the latest version of a model, and with a named one."""

    async def score(request: Request) -> Response:
        """Score images or texts. Several inputs of one request may share batches with those of others."""
        lifecycle.require_loaded()
        path = request.path_params
        model = repository.get(path["model"], path.get("version"))
        try:
            lifecycle.require_ready()
            submission, options = await _accept(request, model, settings)
            return await _answer(request, model, submission, options, preparer)
        except Problem as problem:
            if problem.type in REJECTIONS:
                model.meters.rejected(problem.type)
            raise

    return [
        _Direct("/v1/models/{model}/score", score, methods=["POST"], **score_operation("latest version")),
        _Direct(
            "/v1/models/{model}/versions/{version}/score",
            score,
            methods=["POST"],
            **score_operation("named version", version=True),
        ),
    ]


async def _accept(request: Request, model: Model, settings: Settings) -> tuple[Submission, Options]:
    """Everything that can be refused, in the order of what it costs: headers, query, queue, body."""
    encoding = request.headers.get("content-encoding", "identity")
    content_type = request.headers.get("content-type")
    parse = choose_parser(content_type, encoding, model.modality, max_inputs=settings.max_inputs)
    query = query_options(request.query_params.multi_items()) if request.scope["query_string"] else {}
    if query:
        parse_options(query, model.choices)
    try:
        model.batcher.require_room()
    except QueueFull as full:
        raise _overloaded(model, full) from None
    body = await read_body(request, settings.max_body_bytes)
    submission = parse(body)
    given = query | submission.options
    return submission, parse_options(given, model.choices) if given else model.default_options


async def _answer(
    request: Request, model: Model, submission: Submission, options: Options, preparer: Preparer
) -> Response:
    inputs = submission.inputs
    seconds = options.timeout_ms / 1000
    deadline = time.monotonic() + seconds
    with _admit(model, len(inputs)) as places:
        try:
            async with CancelOnHangup(request.receive), asyncio.timeout(seconds) as timer:
                prepared = await preparer.prepare(inputs, model.modality, model.meters.prepared)
                arrays = [each for each in prepared if not isinstance(each, InputError)]
                outcomes = await places.run(arrays, deadline=deadline)
        except TimeoutError:
            if timer.expired():
                raise _late(options) from None
            raise
    if any(isinstance(outcome, Expired) for outcome in outcomes):
        raise _late(options)
    return _respond(model, inputs, _results(model, prepared, outcomes, options), options)


def _admit(model: Model, count: int) -> Places:
    try:
        return model.batcher.admit(count)
    except QueueFull as full:
        raise _overloaded(model, full) from None


def _overloaded(model: Model, full: QueueFull) -> Overloaded:
    return Overloaded(
        f"The queue of model {model.name} is full. Try again in {full.retry_after} s.", retry_after=full.retry_after
    )


def _late(options: Options) -> DeadlinePassed:
    return DeadlinePassed(f"The request was not scored within {options.timeout_ms} ms; it costs no more compute.")


def _results(
    model: Model, prepared: Sequence[Prepared], outcomes: Sequence[Outcome], options: Options
) -> list[dict[str, Any] | InputError]:
    """One result per input, in the request's order: what preparing refused, what the engine failed on, the scores."""
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
    scored = iter(model.scorer.score(rows, options) if rows else [])
    settled = iter(outcomes)
    results: list[dict[str, Any] | InputError] = []
    for each in prepared:
        if isinstance(each, InputError):
            results.append(each)
            continue
        outcome = next(settled)
        if not isinstance(outcome, Row):
            results.append(InputError(InferenceFailed.type, "The engine failed on this input's batch. Try again."))
            continue
        result = next(scored)
        if options.explain and not isinstance(result, InputError):
            result["explanation"] = _explanation(model, each, outcome)
        results.append(result)
    return results


def _explanation(model: Model, item: Array, row: Row) -> dict[str, Any]:
    """What the input's likelihood is made of."""
    spec = model.bundle.manifest.likelihood
    assert spec is not None, "the options of a model without a likelihood do not ask for explanations"
    return model.modality.explain(item, row.outputs[PARTS][row.index], spec)


def _respond(
    model: Model, inputs: Sequence[Input], results: Sequence[dict[str, Any] | InputError], options: Options
) -> Response:
    answers: list[dict[str, Any]] = []
    errors = 0
    for index, (item, result) in enumerate(zip(inputs, results, strict=True)):
        if isinstance(result, InputError):
            errors += 1
            model.meters.input_error(result.type)
            answers.append({"index": index, "id": item.id, "error": {"type": result.type, "detail": result.detail}})
        else:
            model.meters.scored(result["scores"])
            answers.append({"index": index, "id": item.id, **result})
    if len(inputs) == 1 and isinstance(results[0], InputError):
        raise InvalidInput(results[0], inputs[0].id)
    content = {"model": model.name, "version": model.version, "results": answers, "errors": errors}
    if warnings := model.scorer.warnings(options):
        content["warnings"] = warnings
    return Response(orjson.dumps(content), media_type="application/json")
