"""Routes with the attributes that the rest of the service reads: error format, access, log level, documentation."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.http.error_format import ErrorFormat
from service.http.problem_json import PROBLEM_JSON
from service.inputs.modality import Modality


class Access(Enum):
    """The key that a request needs, if the service has a file of such keys.

    Probes and metrics are open: orchestrators and Prometheus send no keys, and the responses hold no data of clients.
    The network limits who can reach them (the gateway does not forward `/metrics`).
    """

    OPEN = "no key"
    API_KEY = "an API key"
    ADMIN_KEY = "an admin key"


class Route(APIRoute):
    """FastAPI's route, with the attributes of this service.

    Attributes:
        error_format: How its errors are written.
        access: The key that it needs: an API key by default, so that a new route is protected.
        quiet: Whether its requests are logged at debug level only and not traced: for probes.
        examples: Makes examples of its JSON body for a model's modality, by title, for the OpenAPI document.
        schemas: The schemas that its documentation refers to, by name, for the OpenAPI document's components.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        error_format: ErrorFormat = PROBLEM_JSON,
        access: Access = Access.API_KEY,
        quiet: bool = False,
        examples: Callable[[Modality], dict[str, Any]] | None = None,
        schemas: Mapping[str, Any] | None = None,
        **fastapi: Any,
    ) -> None:
        super().__init__(path, endpoint, **fastapi)
        self.error_format = error_format
        self.access = access
        self.quiet = quiet
        self.examples = examples
        self.schemas = schemas or {}

    # HEAD is no method of the route itself, because FastAPI would document it as another operation.
    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a path and a method. HEAD matches where GET does; the server sends no body."""
        match, child_scope = super().matches(scope)
        if match is Match.PARTIAL and scope["method"] == "HEAD" and "GET" in (self.methods or ()):
            return Match.FULL, child_scope
        return match, child_scope

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that matches."""
        if scope["method"] == "HEAD" and "GET" in (self.methods or ()):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)
