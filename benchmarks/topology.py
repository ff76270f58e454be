"""The engine process: what front ends pass to an engine that answers at once, and a comparison with workers."""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.inputs import prepare_bundle, sample_file
from benchmarks.processes import run_module
from benchmarks.results import report
from benchmarks.servers import SERVICE, RunningServer, run_server, with_workers
from bundle import Bundle, ImageInput

# For each front end: with fewer it handles fewer requests per iteration of its event loop, at a higher cost for each.
CONNECTIONS = 32
IMAGES = 64
# Together they stay below the limit of the queue.
CONNECTIONS_OF_LARGE_REQUESTS = 6
COMPARED_CONNECTIONS = (32, 128)
_PACKAGES = ("onnxruntime", "fastapi", "uvicorn", "numpy")


def measure(rounds: int, seconds: float, model: str) -> None:
    """Measure single images and requests of 64 raw images with one and two front ends, then `model` by topology.

    A front end is never alone on a core of a small machine. The figures per core are therefore images per second of
    processor time of a front end; those of the whole service depend on what else runs on the machine.

    Args:
        rounds: The number of interleaved rounds; see `_summary`.
        seconds: The length of each measurement.
        model: The bundle of the comparison with workers.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        repository = Path(folder)
        bundle = prepare_bundle(repository / "stand-in", "one-pixel")
        sample = sample_file(bundle, repository)
        batch = _raw_images(bundle, repository)
        front_ends = {
            count: stack.enter_context(run_server(with_workers(count, engine_process=True), bundle, sample))
            for count in (1, 2)
        }
        results = [
            {
                f"{count}_front_ends_{kind}": _measure_front_ends(server, images, seconds)
                for kind, images in (("single_images", 1), ("64_images", IMAGES))
                for count, server in _bodies(front_ends, bundle, batch, images).items()
            }
            for _ in range(rounds)
        ]
        figures = {name: _summary([result[name] for result in results]) for name in results[0]}
    for kind in ("single_images", "64_images"):
        one, two = (figures[f"{count}_front_ends_{kind}"]["images_per_front_end_core_second"] for count in (1, 2))
        figures[f"2_front_ends_{kind}"]["times_one_front_end"] = 2 * two / one
    compared = _compare(rounds, seconds, model)
    report("topology", {"rounds": rounds, **figures, **compared}, _PACKAGES)
    if any(figure["errors"] for figure in (*figures.values(), *compared.values())):
        raise SystemExit("the service returned errors: the figures are not valid")


def _compare(rounds: int, seconds: float, model: str) -> dict[str, dict[str, float]]:
    """Requests per second of `model` in one process, by two workers, and by two front ends and an engine process."""
    servers = (SERVICE, with_workers(2), with_workers(2, engine_process=True))
    results: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle = prepare_bundle(Path(folder), model)
        sample = sample_file(bundle, Path(folder))
        running = {server.name: stack.enter_context(run_server(server, bundle, sample)) for server in servers}
        for server in running.values():
            server.closed_loop(CONNECTIONS, 1)
        for _ in range(rounds):
            results.append(
                {
                    f"{name}, {connections} connections": _loop(server, connections, seconds)
                    for connections in COMPARED_CONNECTIONS
                    for name, server in running.items()
                }
            )
    return {name: _summary([result[name] for result in results]) for name in results[0]}


def _loop(server: RunningServer, connections: int, seconds: float) -> dict[str, float]:
    figures = server.closed_loop(connections, seconds)
    return {
        "requests_per_second": figures["requests_per_second"],
        "p99_ms": 1e3 * figures["p99_seconds"],
        "service_cpu_ms_per_request": 1e3 * figures["server_cpu_seconds_per_request"],
        "errors": figures["errors"],
    }


def _measure_front_ends(server: RunningServer, images: int, seconds: float) -> dict[str, float]:
    """Throughput of a closed loop, and the processor time of front ends and of the engine process."""
    front_ends = _processes(server, "service.server.worker")
    engine = _processes(server, "service.server.engine_process")
    target = ("127.0.0.1", str(server.port), server.path, str(server.body))
    before = _cpu_seconds(front_ends), _cpu_seconds(engine)
    connections = CONNECTIONS if images == 1 else CONNECTIONS_OF_LARGE_REQUESTS
    figures = run_module("benchmarks.load", *target, str(connections * len(front_ends)), str(seconds))
    scored = images * max(1.0, figures["requests_per_second"] * seconds)
    return {
        "images_per_second": images * figures["requests_per_second"],
        "images_per_front_end_core_second": scored / (_cpu_seconds(front_ends) - before[0]),
        "images_per_engine_core_second": scored / (_cpu_seconds(engine) - before[1]),
        "p50_ms": 1e3 * figures["p50_seconds"],
        "errors": figures["errors"],
    }


def _bodies(servers: dict[int, RunningServer], bundle: Bundle, batch: Path, images: int) -> dict[int, RunningServer]:
    """The servers with the body to send to them."""
    if images == 1:
        return servers
    path = f"/v2/models/{bundle.manifest.name}/infer"
    return {count: replace(server, path=path, body=batch) for count, server in servers.items()}


def _raw_images(bundle: Bundle, folder: Path) -> Path:
    """A file with a binary request of the Open Inference Protocol."""
    spec = bundle.manifest.input
    assert isinstance(spec, ImageInput), "the stand-in takes images"
    shape = (IMAGES, spec.height, spec.width, spec.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8).tobytes()
    tensor = {"name": "images", "shape": shape, "datatype": "UINT8", "parameters": {"binary_data_size": len(pixels)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    file = folder / f"images.{len(head)}.v2"
    file.write_bytes(head + pixels)
    return file


def _processes(server: RunningServer, module: str) -> list[psutil.Process]:
    return [process for process in server.process.children() if module in process.cmdline()]


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(time.user + time.system for time in times))


def _summary(results: list[dict[str, float]]) -> dict[str, float]:
    """The medians of the rounds; of figures per core the best: other load makes a round slower, never faster."""
    return {
        key: (max if key.endswith("core_second") or key == "errors" else median)(result[key] for result in results)
        for key in results[0]
    }
