"""Early load shedding: while a model is overloaded, repeats of a rejected request get their 503 after their headers."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response
from starlette.types import Scope

from service.errors import EngineUnavailable, Overloaded, UnknownModel, UnknownVersion
from service.http.request_id import request_id_of
from service.http.route import Route
from service.inference.outcomes import QueueFull
from service.inference.reservation import Reservation
from service.lifecycle import Lifecycle, Phase
from service.telemetry.access_log import AccessLog

if TYPE_CHECKING:
    from service.repository.model import Model
    from service.repository.served import Repository

_MAX_REJECTIONS = 1024
# The share of a deadline that a request may wait in the queue: the predicted wait is inexact, and computing and
# answering take time as well.
_MAX_WAIT_SHARE = 0.7
_KEY_HEADERS = (b"authorization", b"x-api-key")


@dataclass(frozen=True, slots=True)
class _Rejected:
    """The model and version that a rejected request named, its longest wait in seconds, and fields of its log entry."""

    name: str
    version: str | None
    max_wait: float
    route: Route
    client: str | None


class LoadShedder:
    """Remembers requests rejected for overload, and rejects repeats until the model's queue has room.

    A rejection by the pipeline costs a task, a dozen layers and an exception: at ten times the peak load more than the
    engine leaves (see docs/performance.md). Two requests are repeats if method, path, query and API key are equal.
    A repeat that goes to another version than the rejected request, because one of them goes to the canary, is rejected
    only if the queue of its own version has no room. Early rejections have the same response, metrics and log entry as
    others, but no trace. Not thread-safe: use it on the event loop's thread.
    """

    def __init__(
        self,
        repository: "Repository",
        access_log: AccessLog,
        lifecycle: Lifecycle,
        *,
        ttl_seconds: float = 1.0,
        cross_origin: bool = False,
    ) -> None:
        """Remember nothing yet.

        Args:
            repository: The served models.
            access_log: Where early rejections are counted and logged.
            lifecycle: The phase of the service; only a ready one sheds load.
            ttl_seconds: How long rejections are remembered. After that one request is processed normally, because keys,
                models or traffic rules may have changed.
            cross_origin: Whether pages of other origins may call the service.
        """
        self._repository = repository
        self._access_log = access_log
        self._lifecycle = lifecycle
        self._ttl_seconds = ttl_seconds
        self._cross_origin = cross_origin
        self._rejected: dict[int, _Rejected] = {}

    def check(self, scope: Scope, model: "Model", version: str | None, timeout_ms: int) -> None:
        """Raise `Overloaded`, and remember the request, unless `model` can take one more input in time.

        To be called before the body is read: its inputs would be received in vain.

        Args:
            scope: The scope of the request.
            model: The model that answers the request.
            version: The version that the request names, if any.
            timeout_ms: The request's deadline, as far as its headers and query determine it.
        """
        max_wait = longest_wait(timeout_ms)
        problem = _rejection(model, max_wait)
        if problem is None:
            return
        if not self._rejected:
            asyncio.get_running_loop().call_later(self._ttl_seconds, self._rejected.clear)
        if len(self._rejected) < _MAX_REJECTIONS:
            client = structlog.contextvars.get_contextvars().get("client")
            self._rejected[_fingerprint(scope)] = _Rejected(model.name, version, max_wait, scope["route"], client)
        raise problem

    def early_rejection(self, scope: Scope) -> Response | None:
        """The response to the request of `scope` if it repeats a rejected one and there is still no room, else None.

        A rejection is counted and logged.
        """
        if not self._rejected or self._lifecycle.phase is not Phase.READY:
            return None
        rejected = self._rejected.get(_fingerprint(scope))
        if rejected is None or (self._cross_origin and any(name == b"origin" for name, _ in scope["headers"])):
            # The application adds the headers that let a page of another origin read the response.
            return None
        started = time.perf_counter()
        request_id = request_id_of(scope)
        try:
            model = self._repository.get(rejected.name, rejected.version, request_id)
            problem = _rejection(model, rejected.max_wait)
        except (UnknownModel, UnknownVersion, EngineUnavailable):
            return None
        if problem is None:
            return None
        response = rejected.route.error_format.render(problem, request_id)
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        model.metrics.rejected(problem.type)
        scope["route"] = rejected.route
        fields = {} if rejected.client is None else {"client": rejected.client}
        self._access_log.record(scope, problem.status, time.perf_counter() - started, request_id=request_id, **fields)
        return response


def reserve(model: "Model", count: int, timeout_ms: int) -> Reservation:
    """Reserve room for `count` inputs in the queue of `model`.

    A request that is rejected here is not remembered: the headers of a repeat do not tell how many inputs follow.

    Raises:
        Overloaded: The queue is full, or too long for a deadline of `timeout_ms`.
        EngineUnavailable: The engine process is being restarted.
    """
    try:
        return model.batcher.reserve(count, longest_wait(timeout_ms))
    except QueueFull as error:
        raise _overloaded(model, error) from None


def _rejection(model: "Model", max_wait: float) -> Overloaded | None:
    """The problem to answer with unless `model` can take one more input within `max_wait` seconds."""
    try:
        model.batcher.check_capacity(max_wait=max_wait)
    except QueueFull as error:
        return _overloaded(model, error)
    return None


def _overloaded(model: "Model", error: QueueFull) -> Overloaded:
    return Overloaded(
        f"Model {model.name} is overloaded: {error.reason}. Try again in {error.retry_after} s.",
        retry_after=error.retry_after,
    )


def longest_wait(timeout_ms: int) -> float:
    """The longest time in seconds that a request with this deadline may wait, for decoding or in the queue."""
    return _MAX_WAIT_SHARE * timeout_ms / 1000


def _fingerprint(scope: Scope) -> int:
    # Only a hash is kept, because queries may be long and keys are secret. Its seed is unknown outside this process.
    keys = [value for name, value in scope["headers"] if name in _KEY_HEADERS]
    return hash((scope["method"], scope["path"], scope["query_string"], *keys))
