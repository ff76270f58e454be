"""What a model's engine manages on this machine, learned while it warms up."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

# Batches beyond this share of the best throughput only make inputs wait longer for each other.
_ENOUGH = 0.98
# What a batch costs besides: an engine's thread, the event loop and the clients are woken up for it, and caches change
# hands. WRN-40-2 at concurrency 32, two cores, medians of three rounds in turns: 536 images/s in batches of 2, which
# are within 5% of the best for the engine alone, 587 of 4, 636 of 8, 633 of 16; that is some 1.2 ms of a core a batch.
_HAND_OVER_SECONDS = 0.001
# Throughput that still grows by less with a doubled batch will not grow much with the next one.
_GROWTH = 1.02
# Whatever else the machine does makes a trial slower, never faster: of several the quickest tells the most.
_TRIALS = 6
_TRIALS_SECONDS = 0.04
_COUNTED_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Inputs that one call of the engine should get at most, and the seconds that each of them takes in it.

    `positions` bounds them where they have sizes: their number times the size of the largest.
    """

    batch: int
    seconds_per_input: float
    positions: float = math.inf


def batch_sizes(max_batch: int) -> list[int]:
    """1, 2, 4 ... and `max_batch`."""
    return sorted({*(2**power for power in range(max_batch.bit_length()) if 2**power <= max_batch), max_batch})


def tune_batch_size(
    run: Callable[[int], object], max_batch: int, longest_seconds: float, streams: int = 1
) -> BatchPlan:
    """The smallest batch within 2% of the best throughput, of those that take at most `longest_seconds`.

    `run` computes a batch of the size it is given; `streams` threads do at a time, for each of which the pace is. Each
    size's quickest run counts, of six or those begun within 40 ms, after one that plans memory. Sizes are not tried any
    further once they take too long, or twice did not raise the throughput.
    """
    taken: dict[int, float] = {}
    rates: dict[int, float] = {}
    stale = 0
    for size in batch_sizes(max_batch):
        run(size)
        seconds = best_of(partial(run, size), streams)
        if rates and seconds > longest_seconds:
            break
        best = max(rates.values(), default=0.0)
        taken[size] = seconds
        rates[size] = size / (seconds + _HAND_OVER_SECONDS)
        stale = 0 if rates[size] > _GROWTH * best else stale + 1
        if stale == 2:
            break
    enough = _ENOUGH * max(rates.values())
    batch = next(size for size, rate in rates.items() if rate >= enough)
    return BatchPlan(batch, taken[batch] / batch)


def best_of(run: Callable[[], object], streams: int = 1) -> float:
    """The seconds of the quickest of several runs, which as many threads as there are `streams` make at once."""
    until = time.perf_counter() + _TRIALS_SECONDS
    best_of = math.inf
    with ThreadPoolExecutor(streams) as pool:
        for _ in range(_TRIALS):
            started = time.perf_counter()
            for each in [pool.submit(run) for _ in range(streams)]:
                each.result()
            ended = time.perf_counter()
            best_of = min(best_of, ended - started)
            if ended > until:
                break
    return best_of


def throughput(run: Callable[[], object], threads: int) -> float:
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
