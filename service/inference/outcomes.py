"""The outcomes of inputs handed to the engine: a row of outputs, a failure, an expired deadline, or no admission."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.inputs.modality import Array


class QueueFull(Exception):
    """The queue cannot admit more inputs.

    Attributes:
        reason: Why, in words.
        retry_after: Seconds after which the inputs are expected to be admitted, at least 1.
    """

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(f"{reason}; try again in about {retry_after} s")
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Row:
    """One input's row in the outputs of its batch.

    Attributes:
        outputs: The batch's outputs by name, each `[N, ...]`.
        index: The input's row.
        started: When the engine began to compute the batch, in `time.monotonic()` seconds.
        finished: When the engine had computed the batch, in `time.monotonic()` seconds.
    """

    outputs: Mapping[str, Array]
    index: int
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The engine raised an exception for the input's batch; `reason` is its type and message."""

    reason: str


class Expired:
    """The input's deadline passed before the engine began to compute it; the input was dropped."""


Outcome = Row | Failure | Expired
