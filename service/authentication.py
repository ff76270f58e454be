"""Who is asking: a request without a good API key is answered 401 before anything of it is read."""

import structlog
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import KeyFile
from service.middleware import REQUEST_ID
from service.problems import MissingKey, Unauthorized, WrongKey, problem_response

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
"""What needs no key; everything else does, so that a new route is closed until it is put here.

Orchestrators and Prometheus bring no keys, and what they read holds nothing of what clients sent; who may reach it is
the network's to say (the gateway passes none of /metrics on). The documentation is where a person enters a key. The
console at `/` lists the models like `/v1/models`, and needs one like it.
"""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways to present a key, for the OpenAPI document."""


class Authentication:
    """Pure ASGI, inside `RequestContext`: refusals have a request id, are counted and logged like every answer."""

    def __init__(self, app: ASGIApp, *, keys: KeyFile) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            name = self._client(Headers(scope=scope))
        except Unauthorized as problem:
            # Refused before it was routed; the metrics name the route all the same.
            scope["route"] = _route(scope)
            await problem_response(problem, scope[REQUEST_ID], scope["path"])(scope, receive, send)
            return
        # Not taken back: the access line, which names the client, is written after this returns, and each request runs
        # in a context of its own.
        structlog.contextvars.bind_contextvars(client=name)
        await self._app(scope, receive, send)

    def _client(self, headers: Headers) -> str:
        key = _presented(headers)
        if not key:
            raise MissingKey("This needs an API key. Send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
        name = self._keys.name_of(key)
        if name is None:
            raise WrongKey("This API key is not known here. Ask the operator of the service for one that is.")
        return name


def _presented(headers: Headers) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


def _route(scope: Scope) -> BaseRoute | None:
    return next((route for route in scope["app"].routes if route.matches(scope)[0] is Match.FULL), None)
