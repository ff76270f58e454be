"""The protocol's error format: a JSON object with one message, which begins with the error's type."""

import orjson
from starlette.responses import Response

from service.errors import Problem
from service.http.error_format import ErrorFormat
from service.protocols.open_inference.schemas import InferenceError


def _render(problem: Problem, request_id: str) -> Response:  # noqa: ARG001
    body = {"error": f"{problem.type}: {problem.detail}"}
    return Response(orjson.dumps(body), problem.status, problem.headers, "application/json")


INFERENCE_ERROR = ErrorFormat(_render, {"application/json": {"schema": InferenceError.model_json_schema()}})
