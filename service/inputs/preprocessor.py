"""Payloads to model-ready arrays: small inputs at once, the others on worker threads."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.inputs.modality import Limits, Modality, Prepared
from service.inputs.payloads import Input

# Jobs per thread that a request's inputs are dealt out to: one for each input would cost more than a short text does
# (256 of them: 26 ms instead of 10), one for each thread would leave threads idle behind the one with the large images.
_JOBS_PER_THREAD = 4


class Preprocessor:
    """Prepares inputs; owns the worker threads."""

    def __init__(self, limits: Limits, threads: int) -> None:
        self._limits = limits
        self._most_jobs = _JOBS_PER_THREAD * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    def close(self) -> None:
        """End the threads; what waits for them is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, inputs: Sequence[Input], modality: Modality, observe: Callable[[float], None]
    ) -> list[Prepared]:
        """Each input as the model of `modality` takes it, or what is wrong with it, in order.

        `observe` gets the seconds that each one took. Cancelling drops what no thread has begun.
        """
        if len(inputs) == 1:
            started = time.perf_counter()
            at_once = modality.prepare_inline(inputs[0].payload, self._limits)
            if at_once is not None:
                observe(time.perf_counter() - started)
                return [at_once]
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()
        size = -(-len(inputs) // self._most_jobs)
        jobs = [
            loop.run_in_executor(self._pool, self._job, inputs[start : start + size], modality, abandoned)
            for start in range(0, len(inputs), size)
        ]
        try:
            done = await asyncio.gather(*jobs)
        finally:
            abandoned.set()
        prepared: list[Prepared] = []
        for job in done:
            for each, seconds in job:
                observe(seconds)
                prepared.append(each)
        return prepared

    def _job(
        self, inputs: Sequence[Input], modality: Modality, abandoned: threading.Event
    ) -> list[tuple[Prepared, float]]:
        done: list[tuple[Prepared, float]] = []
        for item in inputs:
            # Nobody waits for the rest: the request was cancelled while a thread was at work on this part of it.
            if abandoned.is_set():
                break
            started = time.perf_counter()
            prepared = modality.prepare(item.payload, self._limits)
            done.append((prepared, time.perf_counter() - started))
        return done
