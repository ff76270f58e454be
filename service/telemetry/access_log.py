"""The access log and the HTTP metrics, written once per response."""

import structlog
from starlette.types import Scope

from service.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger("service.access")


class AccessLog:
    """Counts responses by the template of their route, and logs them if `enabled`."""

    def __init__(self, metrics: Metrics, *, enabled: bool) -> None:
        self._metrics = metrics
        self._enabled = enabled

    def record(self, scope: Scope, status: int, seconds: float, trace_id: str | None = None, **context: str) -> None:
        """Record a response.

        Args:
            scope: The scope of its request.
            status: Its status code.
            seconds: The time from the request's headers to the end of the response.
            trace_id: The trace of the request, an exemplar of the metrics; None if it is not traced.
            context: Further fields of the log entry.
        """
        self._metrics.http(route_of(scope), scope["method"], status, seconds, trace_id)
        if self._enabled:
            write = log.debug if getattr(scope.get("route"), "quiet", False) else log.info
            ms = round(seconds * 1000, 2)
            write("request", method=scope["method"], path=scope["path"], status=status, ms=ms, **context)


def route_of(scope: Scope) -> str:
    """The path template of the request's route; "other" for a request without a route."""
    return getattr(scope.get("route"), "path", "other")
