"""Routes without a framework between the request and its handler."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Problem
from service.http.problem_json import problem_answer


class FastRoute(APIRoute):
    """A route whose endpoint takes the request as it is: nothing to resolve, nothing to validate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom routes."""
        return self.endpoint


class FastRoutes:
    """Pure ASGI, innermost: answers what the direct ones of `routes` match, passes everything else on.

    The framework's own way to an endpoint leads through a dozen layers (exceptions twice, exit stacks three times, the
    router), which cost an eighth of a request to a small model, and more than half of one that is turned away.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, FastRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass it on."""
        if scope["type"] == "http":
            for route in self._routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found, route=route)
                    request = Request(scope, receive, send)
                    try:
                        response = await route.endpoint(request)
                    except Problem as problem:
                        response = problem_answer(request, problem)
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)
