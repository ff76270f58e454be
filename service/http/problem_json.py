"""The service's own error format: RFC 9457 `application/problem+json`."""

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.errors import Problem
from service.http.error_format import ErrorFormat

MEDIA_TYPE = "application/problem+json"


class ProblemAnswer(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["unknown-model"])
    title: str
    status: int
    detail: str
    request_id: str


def problem_response(problem: Problem, request_id: str) -> Response:
    """The response to `problem`, with its headers and extension members."""
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }
    return Response(orjson.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


PROBLEM_JSON = ErrorFormat(problem_response, {MEDIA_TYPE: {"schema": ProblemAnswer.model_json_schema()}})
"""The format of every route that declares no other."""
