"""What every request gets: an id, a count, a log line, and an answer even where our own code fails."""

import random
import re
import time
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.lifecycle import Lifecycle, Phase
from service.metrics import Metrics
from service.problems import RPCS, InternalError, problem_response

if TYPE_CHECKING:
    from service.tracing import Tracing

REQUEST_ID = "request_id"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
QUIET_ROUTES = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
        *(f"{RPCS}/ServerLive", f"{RPCS}/ServerReady", f"{RPCS}/ModelReady"),
    }
)
"""What machines ask for all the time: logged at debug, not traced."""

log = structlog.stdlib.get_logger("service.access")


class RequestContext:
    """Pure ASGI: a wrapper of `send` costs microseconds where a middleware with its own request object costs tens."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        lifecycle: Lifecycle,
        access_log: bool,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope[REQUEST_ID] = _request_id(scope)
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
                    self._tracing.routed(scope["method"], _route(scope))
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self._lifecycle.phase is Phase.DRAINING:
                    # Clients with a kept-alive connection learn that their next request needs another replica.
                    headers["connection"] = "close"
            await send(message)

        # What comes after the door closed is refused in no time; counting it could keep the process from ending.
        accepted = not self._lifecycle.closed
        self._lifecycle.in_flight += accepted
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("unhandled error", path=scope["path"])
            if not status:
                problem = InternalError("The service failed on this request; its log has the reason under request_id.")
                await problem_response(problem, request_id, scope["path"])(scope, receive, send_with_id)
        finally:
            self._lifecycle.in_flight -= accepted
            seconds = time.perf_counter() - started
            route = _route(scope)
            # Without a status nobody was answered: the client hung up, or the grace period ended.
            self._metrics.http(route, scope["method"], status or 499, seconds, trace_id)
            self._log(scope, route, status or 499, seconds)
            structlog.contextvars.reset_contextvars(**tokens)

    def _log(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        if self._access_log:
            write = log.debug if route in QUIET_ROUTES else log.info
            write("request", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 2))


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "other")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    # Unique, not secret: no system call for it.
    return given if _ACCEPTED_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
