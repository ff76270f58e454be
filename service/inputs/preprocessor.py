"""Preprocessing: payloads become arrays, small inputs on the event loop and all others on worker threads."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from service.errors import Overloaded
from service.inputs.decode_budget import RequestSize
from service.inputs.modality import Limits, Modality, Prepared
from service.inputs.payloads import Input, Text
from service.inputs.preparation_pool import Job, PreparationPool

# Jobs per thread that the inputs of a request are divided into: more than one, so that no thread idles while another
# one decodes the large images, but not one job per input, which costs more than a short text. See docs/performance.md.
_JOBS_PER_THREAD = 4
# A job of more work has one input only: requests take turns by jobs.
_UNITS_PER_JOB = 1_000_000

_Prepared = list[tuple[Prepared, float]]


class Preprocessor:
    """Converts inputs to arrays; owns the worker threads."""

    def __init__(
        self,
        limits: Limits,
        threads: int,
        *,
        max_request_pixels: int | None = None,
        max_request_chars: int | None = None,
    ) -> None:
        """Start the pool of worker threads.

        Args:
            limits: The limits of one input.
            threads: The number of threads.
            max_request_pixels: Most pixels of all images of one request. None: ten images of the largest size.
            max_request_chars: Most characters of all texts of one request. None: ten texts of the largest size.
        """
        self._limits = limits
        self._max_request_pixels = max_request_pixels or 10 * limits.max_pixels
        self._max_request_chars = max_request_chars or 10 * limits.max_text_chars
        self._max_jobs = _JOBS_PER_THREAD * threads
        self._pool: PreparationPool[_Prepared] = PreparationPool(threads)

    def close(self) -> None:
        """End the threads and drop the queued jobs."""
        self._pool.close()

    async def prepare(
        self,
        inputs: Sequence[Input],
        modality: Modality,
        observe: Callable[[float], None],
        *,
        max_wait: float = math.inf,
    ) -> list[Prepared]:
        """Convert the inputs of one request, in order.

        Cancelling the call drops the inputs that no thread has begun to convert.

        Args:
            inputs: The inputs.
            modality: The modality of the model.
            observe: Is called with the seconds that each input took.
            max_wait: The longest time in seconds that the conversion may take if other requests are ahead.

        Raises:
            Overloaded: The inputs of other requests would delay these beyond `max_wait`.
            TooManyInputs: The inputs have too many pixels or characters together.
        """
        size = RequestSize(self._max_request_pixels, self._max_request_chars)
        size.add_chars(sum(len(item.payload.text) for item in inputs if isinstance(item.payload, Text)))
        if len(inputs) == 1:
            started = time.perf_counter()
            prepared_inline = modality.prepare_inline(inputs[0].payload, self._limits)
            if prepared_inline is not None:
                observe(time.perf_counter() - started)
                return [prepared_inline]
        cancelled = threading.Event()
        limits = replace(self._limits, request=size)
        jobs = [
            Job(partial(_convert, part, modality, limits, cancelled), units)
            for part, units in self._parts(inputs, modality)
        ]
        self._require_room(jobs, max_wait)
        self._pool.submit(cancelled, jobs)
        try:
            results = await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        finally:
            cancelled.set()
            self._pool.drop(cancelled)
        prepared: list[Prepared] = []
        for result in results:
            for array, seconds in result:
                observe(seconds)
                prepared.append(array)
        return prepared

    def _parts(self, inputs: Sequence[Input], modality: Modality) -> Iterator[tuple[Sequence[Input], int]]:
        """The inputs in jobs of similar work, each with its estimated work."""
        most = -(-len(inputs) // self._max_jobs)
        begin = units = 0
        for end, item in enumerate(inputs, 1):
            units += modality.work(item.payload, self._limits)
            if end - begin == most or units >= _UNITS_PER_JOB or end == len(inputs):
                yield inputs[begin:end], units
                begin, units = end, 0

    def _require_room(self, jobs: Sequence[Job[_Prepared]], max_wait: float) -> None:
        seconds, ahead = self._pool.expected_seconds(jobs)
        if ahead and seconds > max_wait:
            raise Overloaded(
                f"Decoding the inputs would take about {seconds:.1f} s, because inputs of other requests are ahead. "
                f"Try again in {max(1, math.ceil(ahead))} s.",
                retry_after=max(1, math.ceil(ahead)),
            )


def _convert(inputs: Sequence[Input], modality: Modality, limits: Limits, cancelled: threading.Event) -> _Prepared:
    """Convert `inputs` until `cancelled` is set; each result with the seconds that it took."""
    results: _Prepared = []
    for item in inputs:
        if cancelled.is_set():
            break
        started = time.perf_counter()
        prepared = modality.prepare(item.payload, limits)
        results.append((prepared, time.perf_counter() - started))
    return results
