"""Greedy batching: an idle engine computes the queued inputs at once; while it computes, the next batch grows.

No timer delays an input in the hope of a larger batch.
"""

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from typing_extensions import override

from service.inference.engine_monitor import EngineMonitor, EngineState
from service.inference.engine_queue import EngineQueue
from service.inference.engine_thread import EngineThread
from service.inference.execution_plan import ExecutionMode, ExecutionPlan
from service.inference.onnx_session import BundleChanged
from service.inference.outcomes import Expired, Failure, Outcome, Row
from service.inference.reservation import Reservation
from service.inputs.fair_queue import FairQueue
from service.inputs.modality import Array, Run

log = structlog.stdlib.get_logger(__name__)

# Engine threads have a lower priority than the event loop, so that the loop gets a core when it needs one. See
# docs/performance.md.
_ENGINE_NICENESS = 10

# Weight of the latest batch in the moving average of seconds per input: neither admission nor Retry-After should jump
# with one unusual batch.
_SMOOTHING = 0.1

# How long `close` waits for the queued inputs, and then for calls that were asked to end.
_CLOSE_SECONDS = 2.0
_TERMINATE_SECONDS = 1.0


class BatchObserver(Protocol):
    """Receives the figures of each computed batch, on the thread that computed it."""

    def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """Record one batch.

        Args:
            size: Number of inputs.
            waited: Seconds that each input was queued.
            seconds: Time that the engine computed.
        """


class Request(Protocol):
    """A request that has inputs in the queue."""

    @property
    def explain(self) -> bool:
        """Whether the outputs that explain the inputs' scores are wanted."""

    def set_outcome(self, index: int, outcome: Outcome) -> None:
        """Store the outcome of the input `index`."""

    def __hash__(self) -> int:
        """Each request has a lane of its own."""


@dataclass(slots=True)
class QueuedInput:
    """One input in the queue.

    Attributes:
        request: Gets the outcome.
        index: The input's number in its request.
        item: The prepared input.
        queued_at: When the input was queued, in seconds of the batcher's clock.
        deadline: When the input expires.
    """

    request: Request
    index: int
    item: Array
    queued_at: float
    deadline: float


Deliver = Callable[[Sequence[QueuedInput], Sequence[Outcome]], object]
"""Takes the outcomes of inputs, all of the same kind and of one batch, on the thread that computed them."""


class Batcher(EngineQueue):
    """The queue in front of one engine, and the threads that run the engine.

    In the mode `INLINE` there are no threads: the event loop runs the engine, on the inputs that were queued in one
    iteration of the loop.

    Requests take turns: a request of many inputs does not delay a request of one. Use a batcher on the thread of its
    event loop.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        plan: ExecutionPlan,
        *,
        capacity: int,
        loop: asyncio.AbstractEventLoop,
        size_of: Callable[[Array], int] | None = None,
        observer: BatchObserver | None = None,
        monitor: EngineMonitor | None = None,
        thread: EngineThread | None = None,
        explain: Run | None = None,
        deliver: Deliver | None = None,
        on_left: Callable[[int], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the engine threads.

        Args:
            name: Names the threads.
            run: Computes a batch.
            plan: Bounds the batches, gives the number of threads and predicts how long an input will wait.
            capacity: Most inputs that are admitted and not yet being computed.
            loop: The event loop that gets the outcomes.
            size_of: The size of an input, positive. Batches are then made of inputs of similar size.
            observer: Receives the figures of each batch.
            monitor: The engine's running calls; `close` ends those that take too long.
            thread: The only engine thread, if the engine needs the thread that it was opened on.
            explain: Computes a batch in which an input's explanation is wanted; None if `run` does.
            deliver: Takes the outcomes; by default the requests get them on the event loop.
            on_left: Called with the number of inputs that have left the queue so far, on any thread, one call at a
                time.
            clock: The time in seconds; deadlines are compared with it.
        """
        self.plan = plan
        self.capacity = capacity
        self._run = run
        self._explain = explain or run
        self._loop = loop
        self._observer = observer
        self.monitor = monitor or EngineMonitor(name)
        self._clock = clock
        self._inline = plan.mode is ExecutionMode.INLINE
        self._queue: FairQueue[Request, QueuedInput] = FairQueue(
            None if size_of is None else lambda queued: size_of(queued.item)
        )
        self._deliver_elsewhere = deliver
        self._on_left = on_left
        self._left = 0
        self._reserved = 0
        self._seconds_per_input = plan.seconds_per_input / plan.threads
        self._condition = threading.Condition()
        self._closing = False
        self._idle_threads = plan.threads
        self._scheduled: asyncio.Handle | None = None
        self._threads: list[threading.Thread] = [
            threading.Thread(target=self._run_on_cores, name=f"engine-{name}-{index}", daemon=True)
            for index in range(0 if self._inline or thread is not None else plan.threads)
        ]
        for started in self._threads:
            started.start()
        if thread is not None:
            # Without a lower priority: it seldom needs a core, but then a GPU waits for it.
            thread.post(self._run_on_thread)
            self._threads.append(thread)

    @property
    @override
    def depth(self) -> int:
        return self._reserved + len(self._queue)

    @property
    @override
    def seconds_per_input(self) -> float:
        return self._seconds_per_input

    @property
    @override
    def stalled_seconds(self) -> float:
        return self.monitor.stalled_seconds

    @override
    def reserve(self, count: int, max_wait: float = math.inf) -> Reservation:
        with self._condition:
            self.check_capacity(count, max_wait)
            self._reserved += count
        return Reservation(self, count)

    @override
    def close(self) -> None:
        """Compute the queued inputs, then end the engine threads.

        Blocks until they have ended. A call that takes too long is asked to end; a thread whose call does not return
        even then is left behind, so that neither a reload nor the end of the process waits for it forever.
        """
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self.monitor.state = EngineState.CLOSED
        if not self._join(_CLOSE_SECONDS):
            self.monitor.terminate()
            if not self._join(_TERMINATE_SECONDS):
                log.error("engine thread left behind: its call does not return", model=self.monitor.model)

    def _join(self, seconds: float) -> bool:
        """Wait at most `seconds` for the engine threads and return whether all have ended."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def enqueue(self, request: Request, items: Sequence[Array], deadline: float, slots: int) -> None:
        """Queue the `items` of `request` in exchange for its reserved `slots`."""
        now = self._clock()
        queued = [QueuedInput(request, index, item, now, deadline) for index, item in enumerate(items)]
        with self._condition:
            self._reserved -= slots
            self._queue.extend(request, queued)
            if not self._inline:
                self._condition.notify(len(queued))
        if self._inline and self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._run_on_loop)

    def release(self, request: Request, slots: int) -> list[QueuedInput]:
        """Free the unused `slots` of `request`, drop its inputs that are still queued, and return them."""
        with self._condition:
            self._reserved -= slots
            # At once, not when an engine thread comes across them: dropped inputs must not hold memory or capacity.
            dropped = self._queue.discard(request)
            self._count_left(len(dropped))
        return dropped

    def _count_left(self, count: int) -> None:
        """Note that `count` inputs left the queue; the condition is held."""
        self._left += count
        self._on_left(self._left)

    def _run_on_loop(self) -> None:
        """Compute one batch on the event loop, and schedule the next one after the events that came in meanwhile."""
        with self._condition:
            batch, expired = self._take_batch(1)
        if expired:
            self._deliver(expired, [Expired()] * len(expired))
        if batch:
            self._answer(batch, exclusive=True)
        self._scheduled = self._loop.call_soon(self._run_on_loop) if self._queue else None

    def _run_on_cores(self) -> None:
        _lower_thread_priority()
        self._run_on_thread()

    def _run_on_thread(self) -> None:
        try:
            while True:
                batch, exclusive = self._wait_for_batch()
                if not batch:
                    return
                try:
                    self._answer(batch, exclusive=exclusive)
                finally:
                    with self._condition:
                        self._idle_threads += 1
        except Exception as error:
            # Expected only if the event loop was closed first (a killed test, a crashed server).
            if not self._loop.is_closed():
                self.monitor.thread_lost(f"{type(error).__name__}: {error}")
                raise
            log.debug("engine thread ended with its event loop", reason=str(error))

    def _wait_for_batch(self) -> tuple[list[QueuedInput], bool]:
        """The next batch, empty only on closing, and whether the engine computes nothing else at the same time."""
        # A thread that continues takes one thread's share of the queue, not all of it: the other threads finish soon
        # and would otherwise idle until the clients answered now send their next requests. See docs/performance.md.
        sharing_threads = self.plan.threads
        while True:
            with self._condition:
                while not self._queue:
                    if self._closing:
                        return [], False
                    self._condition.wait()
                    sharing_threads = self._idle_threads
                batch, expired = self._take_batch(sharing_threads)
                exclusive = self._idle_threads == self.plan.threads and len(batch) == 1 and not self._queue
                self._idle_threads -= bool(batch)
            if expired:
                self._deliver(expired, [Expired()] * len(expired))
            if batch:
                return batch, exclusive

    def _take_batch(self, sharing_threads: int) -> tuple[list[QueuedInput], list[QueuedInput]]:
        """One of `sharing_threads` equal shares of the queue, at most a full batch; and the expired inputs met."""
        now = self._clock()
        batch: list[QueuedInput] = []
        expired: list[QueuedInput] = []
        size = min(self.plan.max_batch, -(-len(self._queue) // sharing_threads))
        while self._queue and not batch:
            for queued in self._queue.take(size, self.plan.max_positions):
                (batch if queued.deadline > now else expired).append(queued)
        self._count_left(len(batch) + len(expired))
        return batch, expired

    def _answer(self, batch: list[QueuedInput], *, exclusive: bool) -> None:
        """Compute a batch and deliver its outcomes. If it cannot be explained, only inputs that want that fail."""
        try:
            outcomes = self._compute(batch, exclusive)
        except BundleChanged as error:
            log.error("explanations not computed", reason=str(error))
            explained = [queued for queued in batch if queued.request.explain]
            self._deliver(explained, [Failure(str(error))] * len(explained))
            if others := [queued for queued in batch if not queued.request.explain]:
                self._deliver(others, self._compute(others, exclusive))
        else:
            self._deliver(batch, outcomes)

    def _compute(self, batch: list[QueuedInput], exclusive: bool) -> Sequence[Outcome]:
        size = len(batch)
        started = self._clock()
        run = self._explain if any(queued.request.explain for queued in batch) else self._run
        try:
            outputs = run([queued.item for queued in batch], exclusive=exclusive)
        except BundleChanged:
            raise
        except Exception as error:
            log.exception("inference failed", size=size)
            return [Failure(f"{type(error).__name__}: {error}")] * size
        finished = self._clock()
        seconds = finished - started
        if self._observer is not None:
            self._observer.batch(size, [started - queued.queued_at for queued in batch], seconds)
        with self._condition:
            busy_threads = max(1, self.plan.threads - self._idle_threads)
            latest = seconds / size / busy_threads
            self._seconds_per_input += (latest - self._seconds_per_input) * _SMOOTHING
        return [Row(outputs, index, started, finished) for index in range(size)]

    def _deliver(self, inputs: Sequence[QueuedInput], outcomes: Sequence[Outcome]) -> None:
        if self._deliver_elsewhere is not None:
            self._deliver_elsewhere(inputs, outcomes)
        elif self._inline:
            _set_outcomes(inputs, outcomes)
        else:
            # The event loop wakes up once per batch, however many requests are in it.
            self._loop.call_soon_threadsafe(_set_outcomes, inputs, outcomes)


def _lower_thread_priority() -> None:
    """Lower the priority of the calling thread, an engine thread, unless its process has a lower one already."""
    if sys.platform == "linux":
        # On other systems the calls would concern the whole process.
        thread = threading.get_native_id()
        niceness = max(_ENGINE_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _set_outcomes(inputs: Sequence[QueuedInput], outcomes: Sequence[Outcome]) -> None:
    for queued, outcome in zip(inputs, outcomes, strict=True):
        queued.request.set_outcome(queued.index, outcome)
