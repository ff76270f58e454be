"""Throughput and latency of the service over HTTP compared with ONNX Runtime alone, interleaved in one run."""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.inputs import prepare_bundle, sample_file, save_graph_inputs
from benchmarks.processes import run_module
from benchmarks.results import report
from benchmarks.servers import SERVICE, RunningServer, run_server
from service.cpu_count import available_cores

CONCURRENCY = 32


def measure(rounds: int, seconds: float, model: str) -> None:
    """Report the share of the upper limit at concurrency 32 and the latency added at concurrency 1.

    Args:
        rounds: The number of rounds, whose medians are reported.
        seconds: The length of each measurement.
        model: One of `NETWORKS`, or a bundle's folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        bundle = prepare_bundle(repository, model)
        sample = sample_file(bundle, repository)
        inputs = repository / "input.npz"
        save_graph_inputs(bundle, sample, inputs)
        with run_server(SERVICE, bundle, sample) as service:
            service.closed_loop(CONCURRENCY, 2)
            results = [measure_round(bundle.model_path, inputs, service, seconds) for _ in range(rounds)]
    medians = {key: median(result[key] for result in results) for key in results[0]}
    report(
        f"serving-{bundle.manifest.name}",
        {"rounds": rounds, **medians},
        ("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"),
    )
    if medians["errors"]:
        raise SystemExit("the service returned errors: the figures are not valid")


def measure_round(graph: Path, inputs: Path, service: RunningServer, seconds: float) -> dict[str, float]:
    """Measure ONNX Runtime alone, the service at `CONCURRENCY`, and the service at concurrency 1."""
    upper_limit = run_module("benchmarks.upper_limit", str(graph), str(inputs), str(seconds))
    loaded = service.closed_loop(CONCURRENCY, seconds)
    single = service.closed_loop(1, seconds / 2)
    limit = upper_limit["inputs_per_second"]
    cores, rate = available_cores(), loaded["requests_per_second"]
    busy = (loaded["cpu_seconds_per_request"] + loaded["server_cpu_seconds_per_request"]) * rate / cores
    return {
        "upper_limit_inputs_per_second": limit,
        "inputs_per_second_at_concurrency_32": rate,
        "share_of_upper_limit": rate / limit,
        "upper_limit_cpu_ms_per_input": 1e3 * cores / limit,
        "service_cpu_ms_per_input": 1e3 * loaded["server_cpu_seconds_per_request"],
        "event_loop_cpu_ms_per_input": 1e3 * loaded["main_thread_cpu_seconds_per_request"],
        "load_generator_cpu_ms_per_input": 1e3 * loaded["cpu_seconds_per_request"],
        "idle_share_of_cores": 1 - busy,
        "p50_ms_at_concurrency_32": 1e3 * loaded["p50_seconds"],
        "p99_ms_at_concurrency_32": 1e3 * loaded["p99_seconds"],
        "session_run_p50_ms": 1e3 * upper_limit["median_seconds"],
        "p50_ms_at_concurrency_1": 1e3 * single["p50_seconds"],
        "added_p50_ms_at_concurrency_1": 1e3 * (single["p50_seconds"] - upper_limit["median_seconds"]),
        "errors": loaded["errors"] + single["errors"],
    }
