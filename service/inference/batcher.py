"""Greedy batching: an idle engine takes what is queued at once, a busy one lets the next batch grow. No timers."""

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import structlog

from service.inference.batch_tuning import BatchPlan
from service.inference.fair_queue import FairQueue
from service.inputs.modality import Array, Run

log = structlog.stdlib.get_logger(__name__)

# Engines stand back where the event loop wants their core. WRN-40-2 on two cores at ten times its peak: the 503s came
# after 2 ms (p99 21 and 75 in two runs), without it after 139 ms (p99 12 s), and 0.63 and 0.66 of the peak was answered
# instead of 0.40.
_ENGINE_NICENESS = 10


class QueueFull(Exception):
    """Inputs cannot be admitted, for `reason`; `retry_after` is when to try again, in whole seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(f"{reason}; room is expected in about {retry_after} s")
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Row:
    """One input's row in the outputs of the batch that it was part of, which was in the engine from `taken` to `done`.

    Both in `time.monotonic()` seconds.
    """

    outputs: Mapping[str, Array]
    index: int
    taken: float
    done: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The engine raised `reason` for the batch that the input was part of."""

    reason: str


class Expired:
    """The input's deadline passed before the engine could take it; it was never computed."""


Outcome = Row | Failure | Expired


class BatchObserver(Protocol):
    """Who wants to know about batches; called on the engine's thread."""

    def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """A batch of `size` took `seconds` in the engine, each input having `waited` seconds before."""


@dataclass(slots=True)
class _Entry:
    places: "Reservation"
    index: int
    item: Array
    since: float
    deadline: float


class Batcher:
    """The queue in front of one engine, and the threads that run the engine, `streams` of them.

    Where `streams` is 0 there are none: the event loop itself runs the engine, on all that came in one turn of it. That
    is for engines that take no longer than to hand over to another thread and back.

    `pace` is what the engine is known to manage: it bounds a batch, and predicts how long an input will wait.
    `capacity` bounds the inputs that are admitted and not yet in the engine. Requests take turns: one of many inputs
    does not hold up one of a single input. Inputs of a positive `size_of` share batches with those of similar size.
    Use it on the thread of `loop`.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        pace: BatchPlan,
        *,
        capacity: int,
        loop: asyncio.AbstractEventLoop,
        streams: int = 1,
        size_of: Callable[[Array], int] | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self._run = run
        self.capacity = capacity
        self.max_batch = pace.batch
        self._room = pace.positions
        self._observer = observer
        self._queue: FairQueue[Reservation, _Entry] = FairQueue(
            None if size_of is None else lambda entry: size_of(entry.item)
        )
        self._depth = 0
        self._seconds_per_input = pace.seconds_per_input / max(1, streams)
        self._wake = threading.Condition()
        self._closing = False
        self._idle = max(1, streams)
        self.streams = streams
        self._loop = loop
        self._turn: asyncio.Handle | None = None
        self._threads = [
            threading.Thread(target=self._serve, name=f"engine-{name}-{stream}", daemon=True)
            for stream in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Inputs admitted and not yet taken by the engine, those still being decoded included."""
        return self._depth

    @property
    def expected_wait(self) -> float:
        """Seconds until the engine would take an input that is admitted now."""
        return self._depth * self._seconds_per_input

    def check_capacity(self, count: int = 1, patience: float = math.inf) -> None:
        """Raise `QueueFull` unless `count` inputs could be admitted now and taken within `patience` seconds."""
        wait = self.expected_wait
        if self._depth + count > self.capacity:
            raise QueueFull("the queue is full", max(1, math.ceil(wait)))
        if wait > patience:
            raise QueueFull(f"the queue is {wait:.1f} s long", max(1, math.ceil(wait - patience)))

    def reserve(self, count: int, patience: float = math.inf) -> "Reservation":
        """Reserve places for `count` inputs, before they cost anything. Raises `QueueFull`."""
        with self._wake:
            self.check_capacity(count, patience)
            self._depth += count
        return Reservation(self, count)

    def close(self) -> None:
        """Let the engine finish what is queued, then end its threads. Blocks until it has."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(self, places: "Reservation", items: Sequence[Array], deadline: float) -> None:
        now = time.monotonic()
        entries = [_Entry(places, index, item, now, deadline) for index, item in enumerate(items)]
        with self._wake:
            self._depth -= places.slots - len(entries)
            places.slots = len(entries)
            self._queue.extend(places, entries)
            if self.streams:
                self._wake.notify(len(entries))
        if not self.streams and self._turn is None:
            self._turn = self._loop.call_soon(self._run_on_loop)

    def _release(self, places: "Reservation") -> None:
        with self._wake:
            if not places.slots:
                return
            self._depth -= places.slots
            places.slots = 0
            # At once, not when the engine comes by: what nobody waits for must not hold memory or a place.
            self._queue.discard(places)

    def _run_on_loop(self) -> None:
        """On the event loop: one batch of what is queued; the rest after what has come meanwhile."""
        batch, expired = self._take(1)
        _deliver(expired, [Expired()] * len(expired))
        if batch:
            _deliver(batch, self._compute(batch, exclusive=True))
        self._turn = self._loop.call_soon(self._run_on_loop) if self._queue else None

    def _serve(self) -> None:
        _yield_to_event_loop()
        try:
            while True:
                batch, exclusive = self._pull()
                if not batch:
                    return
                try:
                    self._post(batch, self._compute(batch, exclusive))
                finally:
                    with self._wake:
                        self._idle += 1
        except RuntimeError as error:
            # Only when the event loop was closed first (a killed test, a crashed server): nobody is left to answer.
            if not self._loop.is_closed():
                raise
            log.debug("engine thread ends with its event loop", reason=str(error))

    def _pull(self) -> tuple[list[_Entry], bool]:
        """The next batch, at least one input unless closing, and whether nothing else is computed beside it."""
        # A stream that goes on takes its share of the queue, not all of it: the others will be done, and would idle
        # while the clients that are answered now are on their way back. ptb-char-qrnn on two cores, 8 and 32 clients:
        # 2,030 and 2,132 texts/s instead of 1,899 and 2,012.
        streams = self.streams
        while True:
            with self._wake:
                while not self._queue:
                    if self._closing:
                        return [], False
                    self._wake.wait()
                    streams = self._idle
                batch, expired = self._take(streams)
                exclusive = self._idle == self.streams and len(batch) == 1 and not self._queue
                self._idle -= bool(batch)
            if expired:
                self._post(expired, [Expired()] * len(expired))
            if batch:
                return batch, exclusive

    def _take(self, streams: int) -> tuple[list[_Entry], list[_Entry]]:
        """The share of the queue that one of so many `streams` has, and what nobody waits for any more."""
        now = time.monotonic()
        batch: list[_Entry] = []
        expired: list[_Entry] = []
        size = min(self.max_batch, -(-len(self._queue) // streams))
        while self._queue and not batch:
            for entry in self._queue.take(size, self._room):
                entry.places.slots -= 1
                (batch if entry.deadline > now else expired).append(entry)
        self._depth -= len(batch) + len(expired)
        return batch, expired

    def _compute(self, batch: list[_Entry], exclusive: bool) -> Sequence[Outcome]:
        size = len(batch)
        started = time.monotonic()
        try:
            outputs = self._run([entry.item for entry in batch], exclusive=exclusive)
        except Exception as error:
            log.exception("the engine failed on a batch", size=size)
            return [Failure(f"{type(error).__name__}: {error}")] * size
        done = time.monotonic()
        seconds = done - started
        if self._observer is not None:
            self._observer.batch(size, [started - entry.since for entry in batch], seconds)
        with self._wake:
            # A slow average: neither Retry-After nor admission should jump with one odd batch.
            share = seconds / size / max(1, self.streams - self._idle)
            self._seconds_per_input += (share - self._seconds_per_input) * 0.1
        return [Row(outputs, index, started, done) for index in range(size)]

    def _post(self, entries: list[_Entry], outcomes: Sequence[Outcome]) -> None:
        # One wake-up of the event loop per batch, however many requests are in it.
        self._loop.call_soon_threadsafe(_deliver, entries, outcomes)


def _yield_to_event_loop() -> None:
    """Have the calling thread, an engine's, stand back where the event loop wants its core."""
    if sys.platform == "linux":
        # Elsewhere it would be the whole process that stands back.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ENGINE_NICENESS)


def _deliver(entries: list[_Entry], outcomes: Sequence[Outcome]) -> None:
    for entry, outcome in zip(entries, outcomes, strict=True):
        entry.places.set_outcome(entry.index, outcome)


class Reservation:
    """Room for one request's inputs in a queue; leaving the `with` block frees whatever is still held."""

    __slots__ = ("_batcher", "_future", "_missing", "_outcomes", "slots")

    def __init__(self, batcher: Batcher, slots: int) -> None:
        self._batcher = batcher
        self.slots = slots
        self._outcomes: list[Outcome] = []
        self._missing = 0
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._batcher._release(self)

    async def run(self, items: Sequence[Array], *, deadline: float = math.inf) -> list[Outcome]:
        """The outcome of each of `items`, in their order. At most as many as were admitted; once.

        `deadline` is in `time.monotonic()` seconds: an input that the engine has not taken by then is `Expired`.
        Cancelling the call drops what the engine has not taken yet.
        """
        if not items:
            return []
        if self._future is not None or len(items) > self.slots:
            raise ValueError(f"{len(items)} items for {self.slots} places: run once, with no more than were admitted")
        self._future = asyncio.get_running_loop().create_future()
        self._missing = len(items)
        self._outcomes = [Expired()] * len(items)
        self._batcher._enqueue(self, items, deadline)
        await self._future
        return self._outcomes

    def set_outcome(self, index: int, outcome: Outcome) -> None:
        """Take one input's outcome; called by the batcher on the event loop, once for each input."""
        self._outcomes[index] = outcome
        self._missing -= 1
        if not self._missing and self._future is not None and not self._future.done():
            self._future.set_result(None)
