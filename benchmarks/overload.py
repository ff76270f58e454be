"""Overload: what the service still does for its clients at many times the rate that it can sustain."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.inputs import bundle_in, sample_of
from benchmarks.processes import main_thread_seconds, memory, run_module
from benchmarks.results import report
from benchmarks.servers import SERVICE, serving

CONCURRENCY = 32
_MIB = 2**20
_NONE = {"count": 0, "with_retry_after": 0, "p50": 0.0, "p99": 0.0}


def measure(model: str, factor: float, seconds: float, timeout_ms: int) -> None:
    """Print and keep goodput and latencies at `factor` times the peak, each request with a deadline of `timeout_ms`.

    The peak is what a closed loop of 32 connections gets; the overload is an open loop.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_in(Path(folder), model)
        with serving(SERVICE, bundle, sample_of(bundle, Path(folder))) as service:
            service.load(CONCURRENCY, 2)
            peak = service.load(CONCURRENCY, seconds)
            before = memory(service.process)
            where = ("127.0.0.1", str(service.port), f"{service.path}?timeout_ms={timeout_ms}", str(service.body))
            main_before = main_thread_seconds(service.process)
            found = run_module("benchmarks.open_loop", *where, str(factor * peak["requests_per_second"]), str(seconds))
            loop_seconds = (main_thread_seconds(service.process) - main_before) / found["sent"]
            after = memory(service.process)
    report(
        f"overload-{bundle.manifest.name}",
        figures(peak, found, seconds=seconds, timeout_ms=timeout_ms)
        | {
            "event loop, CPU ms a request": 1e3 * loop_seconds,
            "load generator, CPU ms a request": 1e3 * found["cpu_seconds"],
            "memory before, MiB": before / _MIB,
            "memory after, MiB": after / _MIB,
        },
        ("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"),
    )
    if peak["errors"]:
        raise SystemExit("the service answered with errors before it was overloaded: the figures do not count")


def figures(peak: dict[str, Any], found: dict[str, Any], *, seconds: float, timeout_ms: int) -> dict[str, Any]:
    """What is reported of a closed loop's `peak` and what the open loop has `found`."""
    accepted, rejected = (found["answers"].get(code, _NONE) for code in ("200", "503"))
    others = {f"answers {code}": each["count"] for code, each in found["answers"].items() if code not in {"200", "503"}}
    return {
        "peak in a closed loop of 32, requests/s": peak["requests_per_second"],
        "sent in an open loop, requests/s": found["sent"] / seconds,
        "sent too late, p99 ms": 1e3 * found["lag_p99"],
        "goodput, requests/s": found["goodput"],
        "goodput as a share of the peak": found["goodput"] / peak["requests_per_second"],
        "accepted": accepted["count"],
        "accepted, p50 ms": 1e3 * accepted["p50"],
        "accepted, p99 ms": 1e3 * accepted["p99"],
        "deadline, ms": timeout_ms,
        "rejected with 503": rejected["count"],
        "rejected, p50 ms": 1e3 * rejected["p50"],
        "rejected, p99 ms": 1e3 * rejected["p99"],
        "rejected without Retry-After": rejected["count"] - rejected["with_retry_after"],
        **others,
        "without an answer": found["broken"],
    }
