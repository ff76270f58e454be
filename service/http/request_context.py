"""Gives every request an id, an entry in the access log, and a response even if its handler fails."""

import time
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError
from service.http.error_responses import ErrorResponses
from service.http.request_id import REQUEST_ID, request_id_of
from service.lifecycle import Lifecycle, Phase
from service.telemetry.access_log import AccessLog, route_of

if TYPE_CHECKING:
    from service.telemetry.tracing import Tracing

log = structlog.stdlib.get_logger(__name__)


class RequestContext:
    """The outermost ASGI middleware: it sets the request id, counts requests in flight, and writes the access log.

    It wraps `send`, which costs microseconds; a middleware with its own request object costs tens of them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access_log: AccessLog,
        lifecycle: Lifecycle,
        errors: ErrorResponses,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._app = app
        self._errors = errors
        self._access_log = access_log
        self._tracing = tracing
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope[REQUEST_ID] = request_id_of(scope)
        tokens = structlog.contextvars.bind_contextvars(request_id=request_id)
        trace_id = None if self._tracing is None else self._tracing.trace_id()
        if trace_id is not None:
            tokens = {**tokens, **structlog.contextvars.bind_contextvars(trace_id=trace_id)}
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._tracing is not None and trace_id is not None:
                    self._tracing.name_span(scope["method"], route_of(scope))
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self._lifecycle.phase is Phase.DRAINING:
                    # Clients with a kept-alive connection send their next request to another replica.
                    headers["connection"] = "close"
            await send(message)

        # Requests that arrive after the drain are rejected at once. Counting them as in flight could delay shutdown.
        accepted = not self._lifecycle.closed
        self._lifecycle.in_flight += accepted
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("unhandled error", path=scope["path"])
            if not status:
                problem = InternalError("The service failed on this request; its log has the reason under request_id.")
                await self._errors.response(scope, problem)(scope, receive, send_with_id)
        finally:
            self._lifecycle.in_flight -= accepted
            # Without a status no response was sent: the client disconnected, or the grace period ended.
            self._access_log.record(scope, status or 499, time.perf_counter() - started, trace_id)
            structlog.contextvars.reset_contextvars(**tokens)
