"""The engines of a process: where a bundle's engine runs, behind one interface."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bundle import Bundle
from service.inference.batcher import BatchObserver
from service.inference.engine_queue import EngineQueue
from service.inputs.modality import Array, Modality


class EngineObserver(BatchObserver, Protocol):
    """Receives the figures and the faults of one engine, on any thread."""

    def queued(self, waited: Sequence[float]) -> None:
        """Record the seconds that inputs were queued, whose batch another process records."""

    def shape_changed(self) -> None:
        """Record a call for which a GPU had to plan its convolutions anew."""

    def stalled(self) -> None:
        """Record that the engine stalled."""

    def engine_failed(self) -> None:
        """Record that the engine failed on its own sample."""


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """A warm engine of one model version.

    Attributes:
        queue: The queue in front of it.
        modality: Turns inputs into arrays.
        provider: The ONNX Runtime provider that computes.
        preferred_provider: The provider that would compute if it were available.
        nodes: On a GPU, the number of operators that each provider computes.
        sample_outputs: The outputs of an input, each `[1, ...]`, for their types and shapes.
    """

    queue: EngineQueue
    modality: Modality
    provider: str
    preferred_provider: str
    nodes: Mapping[str, int]
    sample_outputs: Mapping[str, Array] = field(default_factory=dict)


class Engines(Protocol):
    """Opens engines, in this process or in the engine process."""

    @property
    def problem(self) -> str | None:
        """Why this process should get no requests, or None."""

    def open(self, bundle: Bundle, make_observer: Callable[[], EngineObserver]) -> OpenEngine:
        """Open the engine of `bundle`. Blocks; not for the thread of the event loop.

        Args:
            bundle: The bundle.
            make_observer: Makes the engine's observer, once the engine is warm.

        Raises:
            EngineError: The graph cannot be served.
            ProviderUnavailable: The required provider is missing.
        """
