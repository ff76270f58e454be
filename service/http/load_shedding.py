"""Overload, from the second request on: who would be turned away all the same is, at the first sight of its head."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response
from starlette.types import Scope

from service.errors import Overloaded, problem_response
from service.http.request_id import request_id_of
from service.inference.outcomes import QueueFull
from service.lifecycle import Lifecycle, Phase
from service.telemetry.access_log import AccessLog

if TYPE_CHECKING:
    from service.repository.model import Model

# For so long a head that was turned away is known. Then one more like it goes all the way: keys, models and traffic
# rules may have changed.
_TTL_SECONDS = 1.0
_MOST_HEADS = 1024
_KEYS = (b"authorization", b"x-api-key")


@dataclass(frozen=True, slots=True)
class _Rejection:
    """What a head asked for, and how long it would have waited; its route and client are for the ledger."""

    model: "Model"
    patience: float
    route: object
    client: str | None


class LoadShedder:
    """Remembers which heads there was no room for, and refuses others like them as long as there is none.

    A refusal on the usual way costs a task, a dozen layers and an exception: at ten times the peak more than the engine
    has left. WRN-40-2 on two cores, load generator included: 0.77 of the peak is answered with a turnstile, 0.57
    without.

    Two requests are alike whose method, path, query and key are the same. Those that are turned away here are answered,
    counted and logged as elsewhere, but not traced. Use it on the event loop's thread.
    """

    def __init__(self, access_log: AccessLog, lifecycle: Lifecycle) -> None:
        self._access_log = access_log
        self._lifecycle = lifecycle
        self._rejected: dict[int, _Rejection] = {}

    def record_rejection(self, scope: Scope, model: "Model", patience: float) -> None:
        """The request of `scope` was turned away, because `model` could not take it within `patience` seconds."""
        if not self._rejected:
            asyncio.get_running_loop().call_later(_TTL_SECONDS, self._rejected.clear)
        if len(self._rejected) < _MOST_HEADS:
            client = structlog.contextvars.get_contextvars().get("client")
            self._rejected[_fingerprint(scope)] = _Rejection(model, patience, scope["route"], client)

    def early_rejection(self, scope: Scope) -> Response | None:
        """The answer to the request of `scope`, if it is to be turned away; it is in the ledger then."""
        if not self._rejected or self._lifecycle.phase is not Phase.READY:
            return None
        known = self._rejected.get(_fingerprint(scope))
        if known is None:
            return None
        started = time.perf_counter()
        try:
            known.model.batcher.check_capacity(max_wait=known.patience)
        except QueueFull as busy:
            problem = overloaded(known.model, busy)
        else:
            return None
        request_id = request_id_of(scope)
        answer = problem_response(problem, request_id, scope["path"])
        answer.raw_headers.append((b"x-request-id", request_id.encode()))
        known.model.metrics.rejected(problem.type)
        scope["route"] = known.route
        named = {} if known.client is None else {"client": known.client}
        self._access_log.record(scope, problem.status, time.perf_counter() - started, request_id=request_id, **named)
        return answer


def overloaded(model: "Model", busy: QueueFull) -> Overloaded:
    """The problem of who cannot be taken by `model`."""
    return Overloaded(
        f"Model {model.name} is overloaded: {busy.reason}. Try again in {busy.retry_after} s.",
        retry_after=busy.retry_after,
    )


def _fingerprint(scope: Scope) -> int:
    # Neither long queries nor keys are kept: only a hash, which nobody outside this process can foresee.
    keys = [value for name, value in scope["headers"] if name in _KEYS]
    return hash((scope["method"], scope["path"], scope["query_string"], *keys))
