"""The service's life: starting, ready, draining, and how many requests are in flight."""

from enum import StrEnum

from service.errors import Draining, Starting


class Phase(StrEnum):
    """Where the process is between its start and its end."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Lifecycle:
    """One per process; changed on the event loop's thread only. `in_flight` counts what is accepted, not refusals."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.in_flight = 0
        self.failure: Exception | None = None
        self._loaded = self._closed = False

    @property
    def closed(self) -> bool:
        """Whether a drain has gone so far that new work is refused."""
        return self._closed

    def ready(self) -> None:
        """Every model that can be served is loaded and warm. A drain that began meanwhile goes on."""
        self._loaded = True
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def fail(self, failure: Exception) -> None:
        """The service cannot start; `failure` says why."""
        self.failure = failure
        self.phase = Phase.FAILED

    def drain(self) -> None:
        """From here on `/readyz` says no and every answer closes its connection; new work is taken until `close`.

        What sends requests learns of a drain late: refusing at once would turn its next requests into errors.
        """
        self.phase = Phase.DRAINING

    def close(self) -> None:
        """The drain's second half: no new work is taken; what was accepted is answered."""
        self._closed = True

    def require_ready(self) -> None:
        """Raise `Starting` or `Draining` (503 with Retry-After) unless work can be taken."""
        if self.closed:
            raise Draining("The service is shutting down. Send the request to another replica.", retry_after=1)
        self.require_loaded()

    def require_loaded(self) -> None:
        """Raise `Starting` (503 with Retry-After) until the models are there."""
        if self._loaded:
            return
        raise Starting("The models are still loading. GET /readyz answers 200 once they are warm.", retry_after=1)
