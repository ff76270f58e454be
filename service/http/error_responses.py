"""Turns exceptions into responses, in the error format of the request's route."""

from collections.abc import Iterable
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Scope

from service.errors import InvalidParameter, MalformedBody, MethodNotAllowed, NotFound, Problem
from service.http.error_format import ErrorFormat
from service.http.problem_json import PROBLEM_JSON
from service.http.request_id import REQUEST_ID
from service.http.route import Route

log = structlog.stdlib.get_logger(__name__)


class ErrorResponses:
    """Makes the responses to problems.

    A request without a route gets the error format of the routes whose paths begin with the same segment: a protocol's
    client can read the error of a misspelled path.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._by_segment: dict[str, ErrorFormat] = {
            _first_segment(route.path): route.error_format
            for route in routes
            if isinstance(route, Route) and route.error_format is not PROBLEM_JSON
        }

    def response(self, scope: Scope, problem: Problem) -> Response:
        """The response to a request that `problem` was raised for."""
        route = scope.get("route")
        if isinstance(route, Route):
            error_format = route.error_format
        else:
            error_format = self._by_segment.get(_first_segment(scope["path"]), PROBLEM_JSON)
        return error_format.render(problem, scope[REQUEST_ID])

    def exception_handlers(self) -> dict[Any, Any]:
        """The handlers for `FastAPI(exception_handlers=...)`."""
        return {
            Problem: self._handle_problem,
            HTTPException: self._handle_http_exception,
            RequestValidationError: self._handle_validation,
        }

    async def _handle_problem(self, request: Request, problem: Problem) -> Response:
        log_problem(problem)
        return self.response(request.scope, problem)

    async def _handle_http_exception(self, request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 404:
            problem: Problem = NotFound(f"There is no {path!r}; GET /docs shows every route.")
        elif error.status_code == 405:
            methods = set((error.headers or {}).get("Allow", "").split(", "))
            allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": allowed})
            problem = MethodNotAllowed(f"{path} does not take {request.method}; it takes {allowed}.")
            error.headers = {"Allow": allowed}
        else:
            problem = MalformedBody(str(error.detail))
        response = self.response(request.scope, problem)
        response.headers.update(error.headers or {})
        return response

    async def _handle_validation(self, request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        problem = InvalidParameter(".".join(str(part) for part in first["loc"]), first["msg"])
        return self.response(request.scope, problem)


def log_problem(problem: Problem) -> None:
    """Log the type of `problem`; not its detail, which may repeat what the client sent."""
    log.debug("problem", type=problem.type)


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path
