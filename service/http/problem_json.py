"""Converts the exceptions of handlers and of the framework to problem responses."""

from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import (
    InvalidInput,
    InvalidParameter,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    Problem,
    problem_response,
)
from service.http.request_id import REQUEST_ID

log = structlog.stdlib.get_logger(__name__)


def exception_handlers() -> dict[Any, Any]:
    """The handlers for `FastAPI(exception_handlers=...)`."""
    return {Problem: _handle_problem, HTTPException: _handle_http_exception, RequestValidationError: _handle_validation}


def problem_response_to(request: Request, problem: Problem) -> Response:
    """The response to a request that raised `problem`."""
    # The detail is not logged, because it may repeat what the client sent.
    log.debug("problem", type=problem.error.type if isinstance(problem, InvalidInput) else problem.type)
    return _response(problem, request)


async def _handle_problem(request: Request, error: Problem) -> Response:
    return problem_response_to(request, error)


async def _handle_http_exception(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if error.status_code == 404:
        problem: Problem = NotFound(f"There is no {path!r}; GET /docs shows every route.")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        problem = MethodNotAllowed(f"{path} does not take {request.method}; it takes {allowed}.")
    else:
        problem = MalformedBody(str(error.detail))
    response = _response(problem, request)
    response.headers.update(error.headers or {})
    return response


async def _handle_validation(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    problem = InvalidParameter(".".join(str(part) for part in first["loc"]), first["msg"])
    return _response(problem, request)


def _response(problem: Problem, request: Request) -> Response:
    return problem_response(problem, request.scope[REQUEST_ID], request.scope["path"])
