"""What every answer leaves behind: a count, and a line in the log."""

import structlog
from starlette.types import Scope

from service.errors import RPCS
from service.telemetry.metrics import Metrics

PROBE_ROUTES = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
        *(f"{RPCS}/ServerLive", f"{RPCS}/ServerReady", f"{RPCS}/ModelReady"),
    }
)
"""What machines ask for all the time: logged at debug, not traced."""

log = structlog.stdlib.get_logger("service.access")


class AccessLog:
    """Counts answers under their route's template, and logs them if `enabled`."""

    def __init__(self, metrics: Metrics, *, enabled: bool) -> None:
        self._metrics = metrics
        self._enabled = enabled

    def record(self, scope: Scope, status: int, seconds: float, trace_id: str | None = None, **context: str) -> None:
        """Enter the answer to the request of `scope`, which took so many `seconds`; `context` goes into its line."""
        route = route_of(scope)
        self._metrics.http(route, scope["method"], status, seconds, trace_id)
        if self._enabled:
            write = log.debug if route in PROBE_ROUTES else log.info
            ms = round(seconds * 1000, 2)
            write("request", method=scope["method"], path=scope["path"], status=status, ms=ms, **context)


def route_of(scope: Scope) -> str:
    """The template of the route that the request took, "other" where there was none."""
    return getattr(scope.get("route"), "path", "other")
