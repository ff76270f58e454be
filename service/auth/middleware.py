"""Authentication by API keys: requests without a valid key get 401 before their body is read."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.api_keys import KeyFile
from service.errors import InvalidApiKey, MissingApiKey, Unauthorized
from service.http.error_responses import ErrorResponses
from service.http.route import Access, Route

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways to send a key, for the OpenAPI document."""

SECURITY: list[dict[str, list[str]]] = [{scheme: []} for scheme in SECURITY_SCHEMES]
"""The `security` of an operation that needs a key, for the OpenAPI document."""


class Authentication:
    """ASGI middleware that checks API keys, inside `RequestContext`, which counts and logs its 401 responses.

    Every path needs a key, except those of open routes. Routes for admin keys check the key themselves, by
    `admin_dependency`.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyFile, routes: Sequence[Route], errors: ErrorResponses) -> None:
        self._app = app
        self._keys = keys
        self._errors = errors
        self._admin_routes = [route for route in routes if route.access is Access.ADMIN_KEY]
        self._open_paths = frozenset(route.path for route in routes if route.access is Access.OPEN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or reject it."""
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        try:
            name = _name(Headers(scope=scope), self._keys, "API key")
        except Unauthorized as problem:
            if any(route.matches(scope)[0] is not Match.NONE for route in self._admin_routes):
                await self._app(scope, receive, send)
                return
            # The request is rejected before routing, but metrics need its route.
            scope["route"] = _route(scope)
            await self._errors.response(scope, problem)(scope, receive, send)
            return
        # Not unbound: the access log names the client after this method returns. Each request has its own context.
        structlog.contextvars.bind_contextvars(client=name)
        await self._app(scope, receive, send)


def admin_dependency(keys: KeyFile) -> Callable[[Request], Awaitable[None]]:
    """A FastAPI dependency that raises `Unauthorized` (401) unless the request has one of `keys`."""

    async def require_admin(request: Request) -> None:
        structlog.contextvars.bind_contextvars(client=_name(request.headers, keys, "admin key"))

    return require_admin


def _name(headers: Headers, keys: KeyFile, kind: str) -> str:
    key = _presented(headers)
    if not key:
        # In lower case, because clients of gRPC refuse other names of metadata. HTTP ignores the case.
        raise MissingApiKey(f"This needs an {kind}. Send it as `authorization: Bearer KEY` or as `x-api-key: KEY`.")
    name = keys.name_of(key)
    if name is None:
        raise InvalidApiKey(f"This {kind} is not valid. Ask the operator of the service for a valid one.")
    return name


def _presented(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _route(scope: Scope) -> BaseRoute | None:
    return next((route for route in scope["app"].routes if route.matches(scope)[0] is Match.FULL), None)
