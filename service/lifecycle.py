"""The phase of the service (starting, ready, draining or failed) and its number of requests in flight."""

from collections.abc import Callable
from enum import StrEnum

from service.errors import Draining, Starting


class Phase(StrEnum):
    """A phase of the service's process."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Lifecycle:
    """The state of one process, changed on the event loop's thread only.

    Attributes:
        phase: The current phase.
        in_flight: The number of accepted requests without a response. Requests rejected after a drain do not count.
        failure: The reason why the service cannot start, if it cannot.
        problem: Returns the reason why a loaded service cannot compute at the moment, or None.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.in_flight = 0
        self.failure: Exception | None = None
        self.problem: Callable[[], str | None] = lambda: None
        self._loaded = self._closed = False

    @property
    def loaded(self) -> bool:
        """Whether the models are loaded and warm."""
        return self._loaded

    @property
    def closed(self) -> bool:
        """Whether a drain has reached the point where new work is rejected."""
        return self._closed

    @property
    def accepts_traffic(self) -> bool:
        """Whether a load balancer should send requests to this process."""
        return self.phase is Phase.READY and self.problem() is None

    def ready(self) -> None:
        """Note that the models are loaded and warm. A drain that has begun continues."""
        self._loaded = True
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def fail(self, failure: Exception) -> None:
        """Note that the service cannot start, because of `failure`."""
        self.failure = failure
        self.phase = Phase.FAILED

    def drain(self) -> None:
        """Begin the drain: `/readyz` answers 503, and each response closes its connection.

        New work is accepted until `close`: load balancers notice a drain late, and would get errors for requests that
        they send meanwhile.
        """
        self.phase = Phase.DRAINING

    def close(self) -> None:
        """Begin the second half of the drain: new work is rejected, and accepted requests are still answered."""
        self._closed = True

    def require_open(self) -> None:
        """Raise `Draining` (503 with Retry-After) once the drain rejects new work."""
        if self._closed:
            raise Draining("The service is shutting down. Send the request to another replica.", retry_after=1)

    def require_loaded(self) -> None:
        """Raise `Starting` (503 with Retry-After) unless the models are loaded."""
        if self._loaded:
            return
        raise Starting("The models are still loading. GET /readyz answers 200 once they are warm.", retry_after=1)
