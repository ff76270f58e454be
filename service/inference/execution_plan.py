"""The execution plan of a model: which threads call its engine, with how many cores, and in batches of what size."""

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self


class ExecutionMode(StrEnum):
    """Which threads call the engine, and how many cores one call uses.

    Attributes:
        INLINE: The event loop calls the engine itself, on one core: for models that compute faster than a call can be
            handed to another thread and back.
        EXCLUSIVE: One thread calls the engine; each call uses all cores.
        SHARED: Several threads call the engine; each call uses one core. A call that has the machine to itself uses
            all cores.
    """

    INLINE = "inline"
    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How a batcher calls the engine of one model.

    Attributes:
        max_batch: Most inputs of one call.
        seconds_per_input: Time of a call of `max_batch` inputs, divided by `max_batch`.
        max_positions: Most padded positions of one call: its number of inputs times the size of the largest. Only for
            modalities whose inputs have sizes.
        mode: Which threads call the engine.
        threads: How many threads call the engine concurrently; more than one only in the mode `SHARED`.
    """

    max_batch: int
    seconds_per_input: float
    max_positions: float = math.inf
    mode: ExecutionMode = ExecutionMode.EXCLUSIVE
    threads: int = 1

    def for_worker(self, workers: int) -> Self:
        """The plan of one of several `workers` (processes) that share the cores: it gets its part of the threads."""
        return replace(self, threads=max(1, self.threads // workers))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The plan that `to_json` returned."""
        return cls(**{**fields, "mode": ExecutionMode(fields["mode"])})
