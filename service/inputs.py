"""Payloads to model-ready arrays: small inputs at once, the others on worker threads."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.modalities import Limits, Modality, Prepared
from service.payloads import Input, Payload


class Preparer:
    """Prepares inputs; owns the worker threads."""

    def __init__(self, limits: Limits, threads: int) -> None:
        self._limits = limits
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
            at_once = modality.prepare_at_once(inputs[0].payload, self._limits)
            if at_once is not None:
                observe(time.perf_counter() - started)
                return [at_once]
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._pool, self._timed, item.payload, modality) for item in inputs]
        done = await asyncio.gather(*jobs)
        for _, seconds in done:
            observe(seconds)
        return [prepared for prepared, _ in done]

    def _timed(self, payload: Payload, modality: Modality) -> tuple[Prepared, float]:
        started = time.perf_counter()
        prepared = modality.prepare(payload, self._limits)
        return prepared, time.perf_counter() - started
