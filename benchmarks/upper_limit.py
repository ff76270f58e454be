"""Throughput and latency of ONNX Runtime alone, the upper limit of any server of the model.

Usage: `python -m benchmarks.upper_limit MODEL INPUT.npz SECONDS`. INPUT.npz holds one graph input, a batch of one.

The limit is the best of several session layouts: one session with all cores, or a one-thread session per core. The
latter is faster for small layers, where threads that share a batch wait for each other. On CUDA, one or two calls run
at a time.
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

from service.cpu_count import available_cores
from service.inference.providers import CUDA, choose_provider

GraphInputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class SessionLayout:
    """Concurrent `sessions`, each with `threads` threads, on batches of `batch_size` inputs."""

    sessions: int
    threads: int
    batch_size: int


def session_layouts(cores: int, *, cuda: bool) -> list[SessionLayout]:
    """All layouts to try."""
    if cuda:
        return [SessionLayout(sessions, 1, size) for sessions in (1, 2) for size in (16, 32, 64, 128, 256)]
    splits = sorted({(1, cores), (cores, 1)})
    return [SessionLayout(sessions, threads, 2**power) for sessions, threads in splits for power in range(7)]


def units_per_second(run: Callable[[], object], units: int, seconds: float) -> float:
    """Throughput of `run`, whose calls process `units` each. The first call is not timed."""
    run()
    processed, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        run()
        processed += units
    return processed / elapsed


def inputs_per_second(model: str, single: GraphInputs, layout: SessionLayout, seconds: float) -> float:
    """Throughput of `layout` on batches of copies of `single`, ready in memory."""
    sessions = [_open(model, layout.threads) for _ in range(layout.sessions)]
    batch = {name: np.repeat(array, layout.batch_size, axis=0) for name, array in single.items()}

    def measure_session(session: onnxruntime.InferenceSession) -> float:
        return units_per_second(lambda: session.run(None, batch), layout.batch_size, seconds)

    with ThreadPoolExecutor(layout.sessions) as pool:
        return sum(pool.map(measure_session, sessions))


def latencies(model: str, single: GraphInputs, threads: int, seconds: float) -> list[float]:
    """Seconds of each `session.run` of one input."""
    session = _open(model, threads)
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(None, dict(single))
        durations.append(time.perf_counter() - start)
    return durations


def _open(model: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    provider, _ = choose_provider("auto")
    return onnxruntime.InferenceSession(model, options, providers=provider.chain())


def main(model: str, inputs: str, seconds: float) -> None:
    """Print the best layout, its throughput, and the median latency of one input as JSON."""
    with np.load(inputs) as arrays:
        single = dict(arrays)
    cores = available_cores()
    provider = _open(model, cores).get_providers()[0]
    candidates = session_layouts(cores, cuda=provider == CUDA)
    # Short trials choose the layout, and a new measurement gives the figure: the best trial is biased upwards.
    best = max(candidates, key=lambda layout: inputs_per_second(model, single, layout, seconds / len(candidates)))
    figures = {
        "inputs_per_second": inputs_per_second(model, single, best, seconds),
        "median_seconds": float(np.median(latencies(model, single, cores, seconds / 2))),
        "layout": {"provider": provider, **asdict(best)},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
