"""Records the calls of one engine that have not returned yet, and can ask ONNX Runtime to end them."""

from collections.abc import Callable
from enum import Enum
from types import TracebackType

import onnxruntime

# Reused between calls: creating run options takes longer than the rest of the record.
_SPARE_OPTIONS = 8


class EngineState(Enum):
    """Whether requests use an engine."""

    LOADING = "loading"
    SERVING = "serving"
    CLOSED = "closed"


class EngineCall:
    """One running call of an engine: a context manager that returns the run options for ONNX Runtime."""

    __slots__ = ("_monitor", "options", "started")

    def __init__(self, monitor: "EngineMonitor", options: onnxruntime.RunOptions, started: float) -> None:
        self._monitor = monitor
        self.options = options
        self.started = started

    def __enter__(self) -> onnxruntime.RunOptions:
        return self.options

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._monitor.returned(self)


class EngineMonitor:
    """The running calls of one engine, on a clock that only `advance` moves. Thread-safe.

    `service.inference.engine_health.EngineHealth` advances the clock. It stands still while the process is stopped
    (SIGSTOP, a frozen container, a suspended machine), so that calls do not seem to have taken that time.

    Attributes:
        model: The model and version, for messages.
        state: Whether requests use the engine.
        planned_seconds: The longest time that a call should take, by the model's execution plan; 0 if unknown.
        stalled: Whether a call has taken much longer than planned and still runs; `EngineHealth` sets it.
        on_stall: Called on the thread of `EngineHealth` whenever `stalled` becomes true.
        broken: The error of an engine that fails on every input, also on its sample; empty for others.
        on_failure: Called whenever the engine fails on its sample.
    """

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.state = EngineState.LOADING
        self.planned_seconds = 0.0
        self.stalled = False
        self.on_stall: Callable[[], object] = lambda: None
        self.broken = ""
        self.on_failure: Callable[[], object] = lambda: None
        self._now = 0.0
        self._running: set[EngineCall] = set()
        self._spare: list[onnxruntime.RunOptions] = []
        self._lost_thread = ""

    def call(self) -> EngineCall:
        """Begin to record a call; leaving the context ends the record."""
        try:
            options = self._spare.pop()
        except IndexError:
            options = onnxruntime.RunOptions()
        call = EngineCall(self, options, self._now)
        self._running.add(call)
        return call

    def returned(self, call: EngineCall) -> None:
        """End the record of `call`; only `EngineCall` calls this."""
        self._running.discard(call)
        if len(self._spare) < _SPARE_OPTIONS and not call.options.terminate:
            self._spare.append(call.options)

    def thread_lost(self, reason: str) -> None:
        """Record that a thread of the engine ended unexpectedly. It then counts as a call that does not return.

        Args:
            reason: The exception that ended the thread.
        """
        self._lost_thread = reason
        self.call()

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds

    @property
    def longest(self) -> float:
        """Seconds since the oldest running call began; 0 if none is running."""
        # Copied in one step, because other threads add and remove calls.
        return max((self._now - call.started for call in self._running.copy()), default=0.0)

    @property
    def busy(self) -> bool:
        """Whether a call is running."""
        return bool(self._running)

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the oldest running call began, while the engine is stalled; otherwise 0."""
        return self.longest if self.stalled else 0.0

    @property
    def problem(self) -> str | None:
        """Why the engine does not compute, while it is stalled."""
        if not self.stalled:
            return None
        if self._lost_thread:
            return f"a thread of the engine of {self.model} ended: {self._lost_thread}"
        return f"the engine of {self.model} has not finished a batch for {self.longest:.0f} s"

    def terminate(self, older_than: float = 0.0) -> None:
        """Ask ONNX Runtime to end the running calls that began at least `older_than` seconds ago.

        ONNX Runtime ends a call between two operators and between two iterations of a loop; the call then raises an
        exception. It cannot end an operator that does not return, for example one that waits for a broken device.
        """
        for call in self._running.copy():
            if self._now - call.started >= older_than:
                call.options.terminate = True
