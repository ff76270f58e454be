"""Preprocessing: payloads become arrays, small inputs on the event loop and all others on worker threads."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.inputs.modality import Limits, Modality, Prepared
from service.inputs.payloads import Input

# Jobs per thread that the inputs of a request are divided into: more than one, so that no thread idles while another
# one decodes the large images, but not one job per input, which costs more than a short text. See docs/performance.md.
_JOBS_PER_THREAD = 4


class Preprocessor:
    """Converts inputs to arrays; owns the worker threads."""

    def __init__(self, limits: Limits, threads: int) -> None:
        """Start the pool of `threads` worker threads."""
        self._limits = limits
        self._max_jobs = _JOBS_PER_THREAD * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    def close(self) -> None:
        """End the threads and drop the queued jobs."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, inputs: Sequence[Input], modality: Modality, observe: Callable[[float], None]
    ) -> list[Prepared]:
        """Convert the inputs of one request, in order.

        Cancelling the call drops the inputs that no thread has begun to convert.

        Args:
            inputs: The inputs.
            modality: The modality of the model.
            observe: Is called with the seconds that each input took.
        """
        if len(inputs) == 1:
            started = time.perf_counter()
            prepared_inline = modality.prepare_inline(inputs[0].payload, self._limits)
            if prepared_inline is not None:
                observe(time.perf_counter() - started)
                return [prepared_inline]
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()
        size = -(-len(inputs) // self._max_jobs)
        jobs = [
            loop.run_in_executor(self._pool, self._run_job, inputs[start : start + size], modality, cancelled)
            for start in range(0, len(inputs), size)
        ]
        try:
            results = await asyncio.gather(*jobs)
        finally:
            cancelled.set()
        prepared: list[Prepared] = []
        for result in results:
            for array, seconds in result:
                observe(seconds)
                prepared.append(array)
        return prepared

    def _run_job(
        self, inputs: Sequence[Input], modality: Modality, cancelled: threading.Event
    ) -> list[tuple[Prepared, float]]:
        """Convert `inputs` until `cancelled` is set; each result with the seconds that it took."""
        results: list[tuple[Prepared, float]] = []
        for item in inputs:
            if cancelled.is_set():
                break
            started = time.perf_counter()
            prepared = modality.prepare(item.payload, self._limits)
            results.append((prepared, time.perf_counter() - started))
        return results
