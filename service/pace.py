"""What a model's engine manages on this machine, learned while it warms up."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

# Batches beyond this share of the best throughput only make inputs wait longer for each other. Less would do for the
# engine alone, but each batch also costs a hand-over: WRN-40-2 on two cores at concurrency 32, medians of three and of
# four runs, 167 images/s with 0.95 and 189 with 0.99.
_ENOUGH = 0.98
# Throughput that still grows by less with a doubled batch will not grow much with the next one.
_GROWTH = 1.02
# Whatever else the machine does makes a trial slower, never faster: of several the quickest tells the most.
_TRIALS = 6
_TRIALS_SECONDS = 0.04
_COUNTED_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """Inputs that one call of the engine should get at most, and the seconds that each of them takes in it.

    `positions` bounds them where they have sizes: their number times the size of the largest.
    """

    batch: int
    seconds_per_input: float
    positions: float = math.inf


def batch_sizes(max_batch: int) -> list[int]:
    """1, 2, 4 ... and `max_batch`."""
    return sorted({*(2**power for power in range(max_batch.bit_length()) if 2**power <= max_batch), max_batch})


def learn_pace(run: Callable[[int], object], max_batch: int, longest_seconds: float) -> Pace:
    """The smallest batch within 2% of the best throughput, of those that take at most `longest_seconds`.

    `run` computes a batch of the size it is given. Each size's quickest run counts, of six or those begun within 40
    ms, after one that plans memory. Sizes are not tried any further once they take too long, or twice did not raise the
    throughput.
    """
    rates: dict[int, float] = {}
    stale = 0
    for size in batch_sizes(max_batch):
        run(size)
        seconds = quickest(partial(run, size))
        if rates and seconds > longest_seconds:
            break
        best = max(rates.values(), default=0.0)
        rates[size] = size / seconds
        stale = 0 if rates[size] > _GROWTH * best else stale + 1
        if stale == 2:
            break
    enough = _ENOUGH * max(rates.values())
    batch = next(size for size, rate in rates.items() if rate >= enough)
    return Pace(batch, 1 / rates[batch])


def quickest(run: Callable[[], object]) -> float:
    """The seconds of the quickest of several runs."""
    until = time.perf_counter() + _TRIALS_SECONDS
    quickest = math.inf
    for _ in range(_TRIALS):
        started = time.perf_counter()
        run()
        ended = time.perf_counter()
        quickest = min(quickest, ended - started)
        if ended > until:
            break
    return quickest


def calls_per_second(run: Callable[[], object], threads: int) -> float:
    """Calls of `run` that as many `threads` at once get done in a second; takes a twentieth of one or one call each."""
    done = [0] * threads
    start = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        start.wait()
        until = time.perf_counter() + _COUNTED_SECONDS
        while not done[index] or time.perf_counter() < until:
            run()
            done[index] += 1

    workers = [threading.Thread(target=work, args=(index,), name=f"trial-{index}") for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - started)
