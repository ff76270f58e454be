"""Authentication by API keys: requests without a valid key get 401 before their body is read."""

import re
from collections.abc import Awaitable, Callable

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.api_keys import KeyFile
from service.errors import InvalidApiKey, MissingApiKey, Unauthorized, problem_response
from service.http.request_id import REQUEST_ID

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
"""The paths that need no key. All other paths need one, so that a new route is protected by default.

Orchestrators and Prometheus send no keys, and the pages that they read hold no data of clients; the network limits who
can reach them (the gateway does not forward `/metrics`). The documentation is open because users enter their key there.
The console at `/` needs a key because it lists the models, as `/v1/models` does.
"""

_ADMIN_PATHS = re.compile(r"/v2/repository/(index|models/[^/]+/(load|unload))|/v1/models/[^/]+/drift/reset")
"""The paths that need an admin key instead of an API key. Their routes check it with `admin_dependency`."""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways to send a key, for the OpenAPI document."""

SECURITY: list[dict[str, list[str]]] = [{scheme: []} for scheme in SECURITY_SCHEMES]
"""The `security` of an operation that needs a key, for the OpenAPI document."""


class Authentication:
    """ASGI middleware that checks API keys, inside `RequestContext`, which counts and logs its 401 responses."""

    def __init__(self, app: ASGIApp, *, keys: KeyFile, admin_calls: bool) -> None:
        self._app = app
        self._keys = keys
        self._admin_calls = admin_calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or reject it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            name = _name(Headers(scope=scope), self._keys, "API key")
        except Unauthorized as problem:
            if self._admin_calls and _ADMIN_PATHS.fullmatch(scope["path"]):
                await self._app(scope, receive, send)
                return
            # The request is rejected before routing, but metrics need its route.
            scope["route"] = _route(scope)
            await problem_response(problem, scope[REQUEST_ID], scope["path"])(scope, receive, send)
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
        raise MissingApiKey(f"This needs an {kind}. Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
    name = keys.name_of(key)
    if name is None:
        raise InvalidApiKey(f"This {kind} is not valid. Ask the operator of the service for a valid one.")
    return name


def _presented(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _route(scope: Scope) -> BaseRoute | None:
    return next((route for route in scope["app"].routes if route.matches(scope)[0] is Match.FULL), None)
