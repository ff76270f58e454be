"""Goodput, latency and rejections of the service at a multiple of the rate that it can sustain."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.inputs import prepare_bundle, sample_file
from benchmarks.processes import main_thread_seconds, memory, run_module
from benchmarks.results import report
from benchmarks.servers import SERVICE, run_server

CONCURRENCY = 32
_MIB = 2**20
_NO_RESPONSES = {"count": 0, "with_retry_after": 0, "p50_seconds": 0.0, "p99_seconds": 0.0}


def measure(model: str, factor: float, seconds: float, timeout_ms: int) -> None:
    """Report goodput and latencies of an open loop at `factor` times the peak.

    The peak is the throughput of a closed loop with 32 connections.

    Args:
        model: One of `NETWORKS`, or a bundle's folder.
        factor: The rate of the open loop as a multiple of the peak.
        seconds: The length of each measurement.
        timeout_ms: The deadline of each request.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = prepare_bundle(Path(folder), model)
        with run_server(SERVICE, bundle, sample_file(bundle, Path(folder))) as service:
            service.closed_loop(CONCURRENCY, 2)
            peak = service.closed_loop(CONCURRENCY, seconds)
            memory_before = memory(service.process)
            target = ("127.0.0.1", str(service.port), f"{service.path}?timeout_ms={timeout_ms}", str(service.body))
            main_thread_before = main_thread_seconds(service.process)
            rate = factor * peak["requests_per_second"]
            overload = run_module("benchmarks.open_loop", *target, str(rate), str(seconds))
            event_loop = (main_thread_seconds(service.process) - main_thread_before) / overload["sent"]
            memory_after = memory(service.process)
    report(
        f"overload-{bundle.manifest.name}",
        figures(peak, overload, seconds=seconds, timeout_ms=timeout_ms)
        | {
            "event_loop_cpu_ms_per_request": 1e3 * event_loop,
            "load_generator_cpu_ms_per_request": 1e3 * overload["cpu_seconds_per_request"],
            "memory_before_mib": memory_before / _MIB,
            "memory_after_mib": memory_after / _MIB,
        },
        ("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"),
    )
    if peak["errors"]:
        raise SystemExit("the service returned errors before it was overloaded: the figures are not valid")


def figures(peak: dict[str, Any], overload: dict[str, Any], *, seconds: float, timeout_ms: int) -> dict[str, Any]:
    """The reported figures of the closed loop `peak` and the open loop `overload`."""
    responses = overload["responses"]
    accepted, rejected = (responses.get(status, _NO_RESPONSES) for status in ("200", "503"))
    other_statuses = {
        f"status_{status}": row["count"] for status, row in responses.items() if status not in {"200", "503"}
    }
    return {
        "peak_requests_per_second": peak["requests_per_second"],
        "sent_requests_per_second": overload["sent"] / seconds,
        "send_delay_p99_ms": 1e3 * overload["send_delay_p99_seconds"],
        "goodput_requests_per_second": overload["goodput_per_second"],
        "goodput_share_of_peak": overload["goodput_per_second"] / peak["requests_per_second"],
        "accepted": accepted["count"],
        "accepted_p50_ms": 1e3 * accepted["p50_seconds"],
        "accepted_p99_ms": 1e3 * accepted["p99_seconds"],
        "deadline_ms": timeout_ms,
        "rejected": rejected["count"],
        "rejected_p50_ms": 1e3 * rejected["p50_seconds"],
        "rejected_p99_ms": 1e3 * rejected["p99_seconds"],
        "rejected_without_retry_after": rejected["count"] - rejected["with_retry_after"],
        **other_statuses,
        "unanswered": overload["unanswered"],
    }
