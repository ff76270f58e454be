"""The ceiling: ONNX Runtime alone in this process, `python -m benchmarks.ceiling MODEL INPUT.npz SECONDS`.

INPUT.npz holds one input as the graph takes it, a batch of one. The ceiling is the best of all batch sizes, computed
by one session with every core, or by a session of one thread for each core side by side: small layers leave cores
that share a batch waiting for each other. Where CUDA is at hand it is the GPU's, with one or two calls at a time.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.inference.cpu_count import available_cores
from service.inference.providers import CUDA, choose_provider

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """`streams` sessions that compute at the same time, each with `threads` threads, on batches of `batch`."""

    streams: int
    threads: int
    batch: int


def layouts(cores: int, *, cuda: bool) -> list[Layout]:
    """Every layout that is tried for the ceiling."""
    if cuda:
        return [Layout(streams, 1, batch) for streams in (1, 2) for batch in (16, 32, 64, 128, 256)]
    splits = sorted({(1, cores), (cores, 1)})
    return [Layout(streams, threads, batch) for streams, threads in splits for batch in (1, 2, 4, 8, 16, 32, 64)]


def per_second(run: Callable[[], object], units: int, seconds: float) -> float:
    """How many units a second `run` gets done that does `units` at a time, after a first time that does not count."""
    run()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        run()
        done += units
    return done / elapsed


def inputs_per_second(model: str, one: Feed, layout: Layout, seconds: float) -> float:
    """Throughput of `layout` on batches that are ready in memory."""
    sessions = [_open(model, layout.threads) for _ in range(layout.streams)]
    feed = {name: np.repeat(array, layout.batch, axis=0) for name, array in one.items()}

    def stream(session: onnxruntime.InferenceSession) -> float:
        return per_second(lambda: session.run(None, feed), layout.batch, seconds)

    with ThreadPoolExecutor(layout.streams) as pool:
        return sum(pool.map(stream, sessions))


def latencies(model: str, one: Feed, threads: int, seconds: float) -> list[float]:
    """Seconds of each `session.run` of one input."""
    session = _open(model, threads)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(None, dict(one))
        taken.append(time.perf_counter() - start)
    return taken


def _open(model: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    provider, _ = choose_provider("auto")
    return onnxruntime.InferenceSession(model, options, providers=provider.chain())


def main(model: str, inputs: str, seconds: float) -> None:
    """Print the best layout's throughput and the median latency of one input as JSON."""
    with np.load(inputs) as stored:
        one = dict(stored)
    cores = available_cores()
    provider = _open(model, cores).get_providers()[0]
    tried = layouts(cores, cuda=provider == CUDA)
    # A short trial finds the best; what counts is measured afterwards, or the ceiling would be the luckiest trial.
    best = max(tried, key=lambda layout: inputs_per_second(model, one, layout, seconds / len(tried)))
    figures = {
        "inputs_per_second": inputs_per_second(model, one, best, seconds),
        "median_seconds": float(np.median(latencies(model, one, cores, seconds / 2))),
        "layout": {"provider": provider, **asdict(best)},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
