"""Detects engines that do not compute any more: the process becomes not ready, and ends if they do not recover."""

import threading
import time
from collections.abc import Callable

import structlog

from service.inference.engine_monitor import EngineMonitor, EngineState

log = structlog.stdlib.get_logger(__name__)

# A slow model on a busy machine takes longer than planned, and is not stalled.
_TIMES_PLANNED = 10

# The first calls of a model allocate memory and compile kernels.
_TIMES_LOADING = 10

_CHECKS_PER_BOUND = 20
_LONGEST_PAUSE_SECONDS = 1.0


class EngineHealth:
    """The state of all engines of a process.

    An engine is stalled while one of its calls takes longer than `stall_seconds`, and than ten times the longest call
    of the model's plan. Such calls are asked to end (`EngineMonitor.terminate`). If a call does not, the process should
    end after `exit_seconds`.

    An engine is broken if it fails on its own sample (`EngineMonitor.broken`), for example because its GPU has failed.
    A GPU does not recover within a process, so the process should end at once.

    Calls of models that are being loaded do not count, because no request waits for them; they are asked to end after
    ten times `stall_seconds`.

    Attributes:
        dead: Whether the process should end.
        on_dead: Called on the watching thread when `dead` becomes true.
    """

    def __init__(self, stall_seconds: float, exit_seconds: float) -> None:
        """Prepare the state; `start` begins to watch.

        Args:
            stall_seconds: Shortest time after which a call is stalled.
            exit_seconds: Shortest time of a stalled call after which the process should end; 0: it never ends, neither
                for a broken engine.
        """
        self.dead = False
        self.on_dead: Callable[[], object] = lambda: None
        self._stall_seconds = stall_seconds
        self._exit_seconds = exit_seconds
        self._monitors: tuple[EngineMonitor, ...] = ()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def add(self, monitor: EngineMonitor) -> None:
        """Watch the engine of `monitor` until it is closed and no call of it runs."""
        with self._lock:
            self._monitors = (*self._monitors, monitor)

    def give_up(self, model: str, reason: str) -> None:
        """End this process because an engine cannot be used any more; may block until it has ended.

        Args:
            model: The model and version, for the log.
            reason: Why, in words.
        """
        if not self.dead:
            self.dead = True
            log.critical("engine is lost; this process ends", model=model, reason=reason)
            self.on_dead()

    @property
    def problem(self) -> str | None:
        """Why this process should get no requests, or None. Strangers may read it; the log names the model."""
        if any(monitor.broken for monitor in self._monitors if _counts(monitor)):
            return "An engine fails on every input."
        seconds = max((monitor.stalled_seconds for monitor in self._monitors if _counts(monitor)), default=0.0)
        return f"An engine has not finished a batch for {seconds:.0f} s." if seconds else None

    @property
    def busy(self) -> bool:
        """Whether a call is running."""
        return any(monitor.busy for monitor in self._monitors)

    def start(self) -> None:
        """Start the thread that watches the engines, until `close`."""
        threading.Thread(target=self._watch, name="engine-health", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()

    def advance(self, seconds: float) -> None:
        """Move the clocks of all engines forward, and react to calls that take too long."""
        for monitor in self._monitors:
            monitor.advance(seconds)
            self._check(monitor)
        with self._lock:
            self._monitors = tuple(
                monitor for monitor in self._monitors if monitor.state is not EngineState.CLOSED or monitor.busy
            )

    def _check(self, monitor: EngineMonitor) -> None:
        if monitor.broken and _counts(monitor) and self._exit_seconds and not self.dead:
            self.dead = True
            log.critical("engine is broken; this process ends", model=monitor.model, reason=monitor.broken)
            self.on_dead()
        bound = max(self._stall_seconds, _TIMES_PLANNED * monitor.planned_seconds)
        if not _counts(monitor):
            bound *= _TIMES_LOADING
        seconds = monitor.longest
        was_stalled, monitor.stalled = monitor.stalled, seconds > bound
        if not monitor.stalled:
            if was_stalled:
                log.info("engine recovered", model=monitor.model)
            return
        monitor.terminate(bound)
        if not was_stalled:
            log.error("engine stalled", model=monitor.model, reason=monitor.problem)
            monitor.on_stall()
        if not self._exit_seconds or self.dead or not _counts(monitor):
            return
        # In proportion to the bound, which may be longer than the setting.
        if seconds > bound * self._exit_seconds / self._stall_seconds:
            self.dead = True
            log.critical("engine does not recover; this process ends", model=monitor.model, reason=monitor.problem)
            self.on_dead()

    def _watch(self) -> None:
        pause = min(self._stall_seconds / _CHECKS_PER_BOUND, _LONGEST_PAUSE_SECONDS)
        checked = time.monotonic()
        while not self._closing.wait(pause):
            now = time.monotonic()
            # No more than the time that this thread can have slept while the process ran.
            self.advance(min(now - checked, 2 * pause))
            checked = now


def _counts(monitor: EngineMonitor) -> bool:
    """Whether requests depend on the engine, or a call of a replaced one still uses the cores."""
    return monitor.state is not EngineState.LOADING
