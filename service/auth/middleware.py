"""Who is asking: a request without a good key is answered 401 before anything of it is read."""

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
"""What needs no key; everything else does, so that a new route is closed until it is put here.

Orchestrators and Prometheus bring no keys, and what they read holds nothing of what clients sent; who may reach it is
the network's to say (the gateway passes none of /metrics on). The documentation is where a person enters a key. The
console at `/` lists the models like `/v1/models`, and needs one like it.
"""

_ADMIN_PATHS = re.compile(r"/v2/repository/(index|models/[^/]+/(load|unload))|/v1/models/[^/]+/drift/reset")
"""What needs an admin key and no API key. These routes look at keys themselves, by `admin_dependency`."""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways to present a key, for the OpenAPI document."""

SECURITY: list[dict[str, list[str]]] = [{scheme: []} for scheme in SECURITY_SCHEMES]
"""What an operation that needs a key says in the OpenAPI document."""


class Authentication:
    """Pure ASGI, inside `RequestContext`: refusals have a request id, are counted and logged like every answer."""

    def __init__(self, app: ASGIApp, *, keys: KeyFile, admin_calls: bool) -> None:
        self._app = app
        self._keys = keys
        self._admin_calls = admin_calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            name = _name(Headers(scope=scope), self._keys, "API key")
        except Unauthorized as problem:
            if self._admin_calls and _ADMIN_PATHS.fullmatch(scope["path"]):
                await self._app(scope, receive, send)
                return
            # Refused before it was routed; the metrics name the route all the same.
            scope["route"] = _route(scope)
            await problem_response(problem, scope[REQUEST_ID], scope["path"])(scope, receive, send)
            return
        # Not taken back: the access line, which names the client, is written after this returns, and each request runs
        # in a context of its own.
        structlog.contextvars.bind_contextvars(client=name)
        await self._app(scope, receive, send)


def admin_dependency(keys: KeyFile) -> Callable[[Request], Awaitable[None]]:
    """For `Depends`: raises `Unauthorized` (401) unless the request presents one of `keys`."""

    async def require_admin(request: Request) -> None:
        structlog.contextvars.bind_contextvars(client=_name(request.headers, keys, "admin key"))

    return require_admin


def _name(headers: Headers, keys: KeyFile, kind: str) -> str:
    key = _presented(headers)
    if not key:
        raise MissingApiKey(f"This needs an {kind}. Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
    name = keys.name_of(key)
    if name is None:
        raise InvalidApiKey(f"This {kind} is not known here. Ask the operator of the service for one that is.")
    return name


def _presented(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _route(scope: Scope) -> BaseRoute | None:
    return next((route for route in scope["app"].routes if route.matches(scope)[0] is Match.FULL), None)
