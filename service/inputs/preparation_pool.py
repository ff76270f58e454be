"""Preparation pool: threads that convert inputs, on which requests take turns."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.inputs.fair_queue import FairQueue

Result = TypeVar("Result")

# Before the first measurement: about what decoding a pixel of a photograph takes on one core.
_FIRST_SECONDS_PER_UNIT = 10e-9
_SMOOTHING = 0.1
# A measurement above it is of an input whose work was underestimated. It must not delay the inputs of other requests.
_MOST_SECONDS_PER_UNIT = 10 * _FIRST_SECONDS_PER_UNIT


@dataclass(slots=True, eq=False)
class Job(Generic[Result]):
    """A part of a request.

    Attributes:
        run: Converts the part.
        units: The estimated work, of which the pool measures how long one unit takes.
    """

    run: Callable[[], Result]
    units: int
    future: "Future[Result]" = field(default_factory=Future)


class PreparationPool(Generic[Result]):
    """Threads that run jobs: those of one request in order, one job of each waiting request per round."""

    def __init__(self, threads: int) -> None:
        """Start `threads` threads."""
        self._queue: FairQueue[object, Job[Result]] = FairQueue()
        self._condition = threading.Condition()
        self._closing = False
        self._running_units = 0
        self._seconds_per_unit = _FIRST_SECONDS_PER_UNIT
        self._threads = threads
        for index in range(threads):
            # A decoder cannot be interrupted: the process must be able to end without it.
            threading.Thread(target=self._work, name=f"prepare_{index}", daemon=True).start()

    def expected_seconds(self, jobs: Sequence[Job[Result]]) -> tuple[float, float]:
        """The time until jobs submitted now would be done, and the share of other requests' jobs in it."""
        with self._condition:
            ahead = self._running_units + sum(job.units for job in self._queue.ahead_of_new_lane(len(jobs)))
            seconds = self._seconds_per_unit / self._threads
        own = sum(job.units for job in jobs)
        return (ahead + own) * seconds, ahead * seconds

    def submit(self, request: object, jobs: Sequence[Job[Result]]) -> None:
        """Queue the jobs of `request`; their futures get the results."""
        with self._condition:
            self._queue.extend(request, jobs)
            self._condition.notify(len(jobs))

    def drop(self, request: object) -> None:
        """Remove the jobs of `request` that no thread has begun."""
        with self._condition:
            self._queue.discard(request)

    def close(self) -> None:
        """Drop the queued jobs and end the threads once they have finished their current one."""
        with self._condition:
            self._closing = True
            while len(self._queue):
                for job in self._queue.take(1):
                    job.future.cancel()
            self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or len(self._queue))
                if self._closing:
                    return
                (job,) = self._queue.take(1)
                if not job.future.set_running_or_notify_cancel():
                    continue
                self._running_units += job.units
            started = time.perf_counter()
            try:
                result = job.run()
            except BaseException as error:
                self._finish(job)
                job.future.set_exception(error)
            else:
                self._finish(job, time.perf_counter() - started)
                job.future.set_result(result)

    def _finish(self, job: Job[Result], seconds: float | None = None) -> None:
        with self._condition:
            self._running_units -= job.units
            if seconds is not None:
                latest = min(seconds / job.units, _MOST_SECONDS_PER_UNIT)
                self._seconds_per_unit += (latest - self._seconds_per_unit) * _SMOOTHING
