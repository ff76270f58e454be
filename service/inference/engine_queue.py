"""The queue in front of an engine: admission control, whether the engine is in this process or in another one."""

import math
from abc import ABC, abstractmethod

from service.inference.execution_plan import ExecutionPlan
from service.inference.outcomes import QueueFull
from service.inference.reservation import Reservation


class EngineQueue(ABC):
    """The queue in front of the engine of one model version, for the thread of the event loop.

    Attributes:
        plan: How the engine is called.
        capacity: Most inputs that are admitted and not yet being computed.
    """

    plan: ExecutionPlan
    capacity: int

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of inputs admitted and not yet being computed, those still being decoded included."""

    @property
    @abstractmethod
    def seconds_per_input(self) -> float:
        """Seconds that the engine takes for each input of the queue."""

    @property
    @abstractmethod
    def stalled_seconds(self) -> float:
        """Seconds since the engine's oldest running call began, while the engine is stalled; otherwise 0."""

    @abstractmethod
    def reserve(self, count: int, max_wait: float = math.inf) -> Reservation:
        """Reserve slots for `count` inputs, before they are decoded.

        Raises:
            QueueFull: There are too few free slots, or the inputs would wait longer than `max_wait` seconds.
            EngineUnavailable: The engine process is being restarted.
        """

    @abstractmethod
    def close(self) -> None:
        """Compute the queued inputs, then stop using the engine. Blocks."""

    @property
    def expected_wait(self) -> float:
        """Seconds until the engine would begin to compute an input that is admitted now."""
        return self.depth * self.seconds_per_input

    def check_capacity(self, count: int = 1, max_wait: float = math.inf) -> None:
        """Raise unless `count` inputs could be admitted now and would wait at most `max_wait` seconds.

        Raises:
            QueueFull: There are too few free slots, or the wait is longer.
            EngineUnavailable: The engine process is being restarted.
        """
        depth = self.depth
        wait = depth * self.seconds_per_input
        if depth + count > self.capacity:
            raise QueueFull("the queue is full", max(1, math.ceil(wait)))
        if wait > max_wait:
            raise QueueFull(f"the queue is {wait:.1f} s long", max(1, math.ceil(wait - max_wait)))
