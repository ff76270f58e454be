"""Routes that are served without FastAPI between the request and its handler."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Problem
from service.http.error_responses import log_problem
from service.http.request_id import REQUEST_ID
from service.http.route import Route


class FastRoute(Route):
    """A route whose endpoint takes the plain request: FastAPI resolves and validates no parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself (FastAPI's hook for custom routes)."""
        return self.endpoint


class FastRoutes:
    """ASGI middleware, the innermost one, that serves each `FastRoute` itself and passes other requests on.

    FastAPI's own dispatch passes a dozen layers (exceptions twice, exit stacks three times, the router), which take a
    large share of a request to a small model: see docs/performance.md. FastAPI has the routes as well, for the OpenAPI
    document and for requests with a wrong method.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, FastRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass it on."""
        if scope["type"] == "http":
            for route in self._routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope, route=route)
                    request = Request(scope, receive, send)
                    try:
                        response = await route.endpoint(request)
                    except Problem as problem:
                        log_problem(problem)
                        response = route.error_format.render(problem, scope[REQUEST_ID])
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)
