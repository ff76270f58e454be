"""Serving: the service over HTTP beside ONNX Runtime alone, same model, same cores, interleaved in one run."""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.inputs import bundle_in, keep_input, sample_of
from benchmarks.processes import run_module
from benchmarks.results import report
from benchmarks.servers import SERVICE, Target, serving
from service.inference.cpu_count import available_cores

CONCURRENCY = 32


def measure(rounds: int, seconds: float, model: str) -> None:
    """Print and keep the share of the ceiling at concurrency 32 and the latency added at concurrency 1.

    `model` is one of `NETWORKS`, or a bundle's folder, of which its own sample is sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        bundle = bundle_in(repository, model)
        name = bundle.manifest.name
        sample = sample_of(bundle, repository)
        inputs = repository / "input.npz"
        keep_input(bundle, sample, inputs)
        with serving(SERVICE, bundle, sample) as service:
            service.load(CONCURRENCY, 2)
            taken = [one_round(bundle.model_path, inputs, service, seconds) for _ in range(rounds)]
    middle = {key: median(figures[key] for figures in taken) for key in taken[0]}
    report(f"serving-{name}", {"rounds": rounds, **middle}, ("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"))
    if middle["errors"]:
        raise SystemExit("the service answered with errors: the figures do not count")


def one_round(graph: Path, inputs: Path, service: Target, seconds: float) -> dict[str, float]:
    """Ceiling, loaded service and lone requests, one after the other."""
    ceiling = run_module("benchmarks.ceiling", str(graph), str(inputs), str(seconds))
    loaded = service.load(CONCURRENCY, seconds)
    lone = service.load(1, seconds / 2)
    best = ceiling["inputs_per_second"]
    cores, rate = available_cores(), loaded["requests_per_second"]
    busy = (loaded["cpu_seconds"] + loaded["server_cpu_seconds"]) * rate / cores
    return {
        "onnx runtime alone, inputs/s": best,
        "service at 32, inputs/s": rate,
        "share of the ceiling": rate / best,
        "the cores at the ceiling, ms an input": 1e3 * cores / best,
        "service at 32, CPU ms an input": 1e3 * loaded["server_cpu_seconds"],
        "of it the event loop, CPU ms an input": 1e3 * loaded["main_thread_cpu_seconds"],
        "load generator at 32, CPU ms an input": 1e3 * loaded["cpu_seconds"],
        "cores idle at 32": 1 - busy,
        "service at 32, p50 ms": 1e3 * loaded["p50"],
        "service at 32, p99 ms": 1e3 * loaded["p99"],
        "bare session.run, p50 ms": 1e3 * ceiling["median_seconds"],
        "service at 1, p50 ms": 1e3 * lone["p50"],
        "added at 1, p50 ms": 1e3 * (lone["p50"] - ceiling["median_seconds"]),
        "errors": loaded["errors"] + lone["errors"],
    }
