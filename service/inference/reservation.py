"""A reservation: slots in a queue that one request holds for its inputs, and the outcomes of the inputs."""

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from service.inference.outcomes import Expired, Outcome
from service.inputs.modality import Array


class InputQueue(Protocol):
    """The part of a queue that a reservation uses."""

    def enqueue(self, request: "Reservation", items: Sequence[Array], deadline: float, slots: int) -> None:
        """Queue `items` in exchange for the reservation's `slots`."""

    def release(self, request: "Reservation", slots: int) -> object:
        """Free the reservation's unused `slots` and drop its inputs that are still queued."""


class Reservation:
    """Slots in a queue for one request's inputs; leaving the `with` block frees the slots that are still held.

    Use it on the event loop's thread.

    Attributes:
        explain: Whether the outputs that explain the inputs' scores are wanted.
    """

    __slots__ = ("_future", "_missing", "_outcomes", "_queue", "_slots", "explain")

    def __init__(self, queue: InputQueue, slots: int) -> None:
        self._queue = queue
        self._slots = slots
        self._outcomes: list[Outcome] = []
        self._missing = 0
        self._future: asyncio.Future[None] | None = None
        self.explain = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slots or self._missing:
            slots, self._slots = self._slots, 0
            self._queue.release(self, slots)

    async def run(self, items: Sequence[Array], *, deadline: float = math.inf, explain: bool = False) -> list[Outcome]:
        """Have the engine compute `items` and return their outcomes, in order.

        Cancelling the call and leaving the `with` block drops the inputs that the engine has not begun to compute.

        Args:
            items: At most as many inputs as slots were reserved. Only one call may have any.
            deadline: In `time.monotonic()` seconds. An input that the engine has not begun to compute by then is
                `Expired`.
            explain: Whether to compute the outputs that explain the scores, too.

        Raises:
            EngineUnavailable: The engine process ended before it had computed all inputs.
        """
        if not items:
            return []
        if len(items) > self._slots:
            raise ValueError(f"{len(items)} inputs for {self._slots} slots: run once, with at most the reserved number")
        self._future = asyncio.get_running_loop().create_future()
        self._missing = len(items)
        self.explain = explain
        self._outcomes = [Expired()] * len(items)
        slots, self._slots = self._slots, 0
        self._queue.enqueue(self, items, deadline, slots)
        await self._future
        return self._outcomes

    def set_outcome(self, index: int, outcome: Outcome) -> None:
        """Store the outcome of one input. The queue calls this on the event loop, once for each input."""
        self._outcomes[index] = outcome
        self._missing -= 1
        if not self._missing and self._future is not None and not self._future.done():
            self._future.set_result(None)

    @property
    def finished(self) -> bool:
        """Whether all inputs have an outcome."""
        return not self._missing

    def fail(self, error: Exception) -> None:
        """Have `run` raise `error`, because the missing inputs will get no outcome. For the event loop's thread."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)
