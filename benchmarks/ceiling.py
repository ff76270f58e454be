"""The ceiling: what ONNX Runtime alone does in this process, `python -m benchmarks.ceiling MODEL SECONDS`."""

import json
import sys
import time

import numpy as np
import onnxruntime

BATCHES = (8, 16, 32, 64)


def images_per_second(session: onnxruntime.InferenceSession, batch: int, seconds: float) -> float:
    """Throughput of `session` on a batch that is ready in memory."""
    images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
    session.run(None, {"images": images})
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        session.run(None, {"images": images})
        done += batch
    return done / elapsed


def latencies(session: onnxruntime.InferenceSession, seconds: float) -> list[float]:
    """Seconds of each `session.run` of one image."""
    image = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(None, {"images": image})
        taken.append(time.perf_counter() - start)
    return taken


def main(model: str, seconds: float) -> None:
    """Print throughput by batch size and the median latency of one image as JSON."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    by_batch = {batch: images_per_second(session, batch, seconds / len(BATCHES)) for batch in BATCHES}
    median = float(np.median(latencies(session, seconds / 2)))
    print(json.dumps({"images_per_second": by_batch, "median_seconds": median}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
