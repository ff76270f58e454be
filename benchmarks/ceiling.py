"""The ceiling: ONNX Runtime alone in this process, `python -m benchmarks.ceiling MODEL INPUT.npz SECONDS`.

INPUT.npz holds one input as the graph takes it, a batch of one.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

BATCHES = (8, 16, 32, 64)

Feed = Mapping[str, NDArray[Any]]


def per_second(run: Callable[[], object], units: int, seconds: float) -> float:
    """How many units a second `run` gets done that does `units` at a time, after a first time that does not count."""
    run()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        run()
        done += units
    return done / elapsed


def inputs_per_second(session: onnxruntime.InferenceSession, one: Feed, batch: int, seconds: float) -> float:
    """Throughput of `session` on a batch that is ready in memory."""
    feed = {name: np.repeat(array, batch, axis=0) for name, array in one.items()}
    return per_second(lambda: session.run(None, feed), batch, seconds)


def latencies(session: onnxruntime.InferenceSession, one: Feed, seconds: float) -> list[float]:
    """Seconds of each `session.run` of one input."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(None, dict(one))
        taken.append(time.perf_counter() - start)
    return taken


def main(model: str, inputs: str, seconds: float) -> None:
    """Print throughput by batch size and the median latency of one input as JSON."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(inputs) as stored:
        one = dict(stored)
    by_batch = {batch: inputs_per_second(session, one, batch, seconds / len(BATCHES)) for batch in BATCHES}
    median = float(np.median(latencies(session, one, seconds / 2)))
    print(json.dumps({"inputs_per_second": by_batch, "median_seconds": median}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
