"""Tunes how a model's engine is called on this machine, by measuring it while the model is loaded."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Protocol

from service.inference.execution_plan import ExecutionMode, ExecutionPlan
from service.inputs.modality import Array, Modality

Clock = Callable[[], float]
Memo = Callable[[Callable[[], ExecutionPlan]], ExecutionPlan]
"""Returns the plan that the function measures, or the one that it measured earlier for the same bundle."""

INLINE_MAX_SECONDS = 1e-4
"""Image models that need at most this CPU time per input run inline on the event loop.

A call on another thread, and its outputs on their way back, would wait for the interpreter lock for longer.
"""

# Longest batch that runs inline: the event loop serves nothing else meanwhile.
_INLINE_BATCH_SECONDS = 1e-3

# Larger batches than the last that comes this close to the best throughput cost more than their hand-over.
_NEAR_BEST = 0.95

# Cost of a batch outside of the engine: threads are woken up and caches change hands. See docs/performance.md.
_HAND_OVER_SECONDS = 0.003

# A doubled batch that raises the throughput by less than this factor does not raise it.
_GROWTH = 1.02

# All other load on the machine makes a trial slower, never faster, so that the quickest of several counts.
_TRIALS = 6
_LEAST_TRIALS = 2
_TRIALS_SECONDS = 0.04
_THROUGHPUT_TRIALS = 3
_THROUGHPUT_SECONDS = 0.05

# Calls on all cores must be faster than concurrent calls on one core each by this factor in a trial, in which the
# event loop needs no core. Under load it does, and the other cores of a shared batch wait. See docs/performance.md.
_EXCLUSIVE_ADVANTAGE = 1.25


class TunableEngine(Protocol):
    """The part of an engine that tuning uses (`service.inference.engine.Engine`)."""

    @property
    def modality(self) -> Modality:
        """Makes sample inputs."""

    @property
    def cores(self) -> int:
        """Cores of a call that uses all of them."""

    @property
    def on_cpu(self) -> bool:
        """Whether the engine computes on the CPU, where calls can share the cores."""

    @property
    def fixed_sizes(self) -> Sequence[int] | None:
        """The batch sizes that batches are filled up to; None if batches have their own sizes."""

    def set_mode(self, mode: ExecutionMode) -> None:
        """Prepare for calls in `mode`."""

    def try_batch(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """Compute a batch. Raises `EngineError`."""


def tune(
    engine: TunableEngine,
    max_batch: int,
    max_seconds: float,
    memo: Memo = lambda measure: measure(),
    clock: Clock = time.perf_counter,
) -> ExecutionPlan:
    """Find the execution plan of a warm engine by measurement, and put the engine into the plan's mode.

    Args:
        engine: The engine; nothing else should compute meanwhile.
        max_batch: Most inputs of a batch.
        max_seconds: Longest time of a batch of more than one input.
        memo: Decides whether to measure.
        clock: The time in seconds.

    Raises:
        EngineError: The graph fails on a batch.
    """
    plan = memo(lambda: _measure(engine, max_batch, max_seconds, clock))
    engine.set_mode(plan.mode)
    return plan


def _measure(engine: TunableEngine, max_batch: int, max_seconds: float, clock: Clock) -> ExecutionPlan:
    exclusive = _tune_mode(engine, ExecutionMode.EXCLUSIVE, max_batch, max_seconds, clock)
    if not engine.on_cpu:
        return exclusive
    shared = replace(exclusive, mode=ExecutionMode.SHARED)
    if engine.cores > 1:
        shared = _tune_mode(engine, ExecutionMode.SHARED, max_batch, max_seconds, clock)
    if engine.modality.size_of is None and shared.seconds_per_input <= INLINE_MAX_SECONDS:
        batch = min(shared.max_batch, int(_INLINE_BATCH_SECONDS / shared.seconds_per_input))
        return replace(shared, mode=ExecutionMode.INLINE, threads=1, max_batch=batch)
    if engine.cores == 1:
        return exclusive
    # Alternating trials, of which the best counts: other load on the machine should not decide.
    best_exclusive = best_shared = 0.0
    for _ in range(_THROUGHPUT_TRIALS):
        best_exclusive = max(best_exclusive, _inputs_per_second(engine, exclusive, clock))
        best_shared = max(best_shared, _inputs_per_second(engine, shared, clock))
    return exclusive if best_exclusive > _EXCLUSIVE_ADVANTAGE * best_shared else shared


def _tune_mode(
    engine: TunableEngine, mode: ExecutionMode, max_batch: int, max_seconds: float, clock: Clock
) -> ExecutionPlan:
    """The plan of `mode`, for typical inputs; a batch of the largest inputs takes at most `max_seconds`, too."""
    engine.set_mode(mode)
    exclusive = mode is ExecutionMode.EXCLUSIVE
    threads = 1 if exclusive else engine.cores
    # Cached: making a batch is not part of the measurement.
    sample_batch = cache(engine.modality.sample_batch)
    sizes = engine.fixed_sizes or batch_sizes(max_batch)
    plan = tune_batch_size(
        lambda size: engine.try_batch(sample_batch(size), exclusive=exclusive), sizes, max_seconds, threads, clock
    )
    plan = replace(plan, mode=mode)
    if engine.modality.size_of is None:
        return plan
    _, large = engine.modality.probe_pair()
    seconds = quickest(lambda: engine.try_batch([large], exclusive=exclusive), threads, clock)
    return replace(plan, max_positions=max_seconds / seconds * engine.modality.size_of(large))


def _inputs_per_second(engine: TunableEngine, plan: ExecutionPlan, clock: Clock) -> float:
    batch = engine.modality.sample_batch(plan.max_batch)
    exclusive = plan.mode is ExecutionMode.EXCLUSIVE
    return plan.max_batch * throughput(lambda: engine.try_batch(batch, exclusive=exclusive), plan.threads, clock)


def batch_sizes(max_batch: int) -> list[int]:
    """The powers of two up to `max_batch`, and `max_batch`."""
    return sorted({*(2**power for power in range(max_batch.bit_length()) if 2**power <= max_batch), max_batch})


def tune_batch_size(
    run: Callable[[int], object],
    sizes: Sequence[int],
    max_seconds: float,
    threads: int = 1,
    clock: Clock = time.perf_counter,
) -> ExecutionPlan:
    """The plan with the largest batch within 5% of the best throughput, among those of at most `max_seconds`.

    A batch is only as large as the queue, so that no input waits for a large one, which is handed over less often.
    Each size is run once to allocate memory, then several times, of which the quickest counts. Larger sizes are not
    tried once a size takes too long, or three in a row do not raise the throughput. All tried sizes are then tried
    again, because other load on the machine during the trials of one size would decide otherwise.

    Args:
        run: Computes a batch of a given size.
        sizes: The sizes to try, in ascending order.
        max_seconds: Longest time of a batch of more than one input.
        threads: How many threads run batches concurrently.
        clock: The time in seconds.
    """
    seconds_of: dict[int, float] = {}
    best, sizes_without_growth = 0.0, 0
    for size in sizes:
        run(size)
        seconds = quickest(partial(run, size), threads, clock)
        if seconds_of and seconds > max_seconds:
            break
        seconds_of[size] = seconds
        rate = _rate(size, seconds)
        sizes_without_growth = 0 if rate > _GROWTH * best else sizes_without_growth + 1
        best = max(best, rate)
        if sizes_without_growth == 3:
            break
    for size, seconds in seconds_of.items():
        seconds_of[size] = min(seconds, quickest(partial(run, size), threads, clock))
    rates = {size: _rate(size, seconds) for size, seconds in seconds_of.items()}
    enough = _NEAR_BEST * max(rates.values())
    batch = max(size for size, rate in rates.items() if rate >= enough)
    return ExecutionPlan(batch, seconds_of[batch] / batch, threads=threads)


def _rate(size: int, seconds: float) -> float:
    """Inputs per second of batches of `size` that take `seconds` each."""
    return size / (seconds + _HAND_OVER_SECONDS)


def quickest(run: Callable[[], object], threads: int = 1, clock: Clock = time.perf_counter) -> float:
    """The seconds of the quickest of several trials; in each, all `threads` call `run` once, concurrently.

    A single caller is this thread: on a GPU another thread would have to prepare its own streams and graphs first.
    """
    with nullcontext() if threads == 1 else ThreadPoolExecutor(threads) as pool:
        end = clock() + _TRIALS_SECONDS
        best = math.inf
        for trial in range(_TRIALS):
            started = clock()
            if pool is None:
                run()
            else:
                for call in [pool.submit(run) for _ in range(threads)]:
                    call.result()
            ended = clock()
            best = min(best, ended - started)
            if ended > end and trial + 1 >= _LEAST_TRIALS:
                break
    return best


def throughput(run: Callable[[], object], threads: int, clock: Clock = time.perf_counter) -> float:
    """Calls of `run` per second by `threads` concurrent callers, measured for 50 ms or one call per thread."""
    started = math.nan
    calls = [0] * threads

    def start_clock() -> None:
        nonlocal started
        started = clock()

    start = threading.Barrier(threads, start_clock)

    def call_repeatedly(index: int) -> None:
        start.wait()
        end = started + _THROUGHPUT_SECONDS
        while not calls[index] or clock() < end:
            run()
            calls[index] += 1

    callers = [
        threading.Thread(target=call_repeatedly, args=(index,), name=f"trial-{index}") for index in range(threads)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(calls) / (clock() - started)
