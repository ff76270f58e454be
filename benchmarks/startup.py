"""Time from the command to an open port and to warm models, and the share that opening the graphs takes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import httpx
import onnxruntime

from benchmarks.processes import free_port, running
from benchmarks.results import report
from benchmarks.servers import ROOT


def measure(rounds: int, models: Path) -> None:
    """Report the seconds that the service needs to start with all `models`, step by step."""
    results = [{**_start_service(models), **_open_graphs(models)} for _ in range(rounds)]
    medians = {key: median(result[key] for result in results) for key in results[0]}
    count = len(list(models.glob("*/*/model.onnx")))
    report("startup", {"rounds": rounds, "models": count, **medians}, ("onnxruntime", "fastapi", "uvicorn", "numpy"))


def _start_service(models: Path) -> Mapping[str, float]:
    """Durations of one start of the service."""
    import_start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import service.app"], cwd=ROOT, check=True, timeout=60)
    import_end = time.perf_counter()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "service", "--models", str(models.resolve()), "--port", str(port)]
    start = time.perf_counter()
    # The server runs in a temporary folder: PYTHONPATH makes it import this checkout, not an installed package.
    with running(command, {"PYTHONPATH": str(ROOT)}, ready=lambda: _succeeds(f"{url}/healthz")):
        port_open = time.perf_counter()
        while not _succeeds(f"{url}/readyz"):
            time.sleep(0.02)
        models_warm = time.perf_counter()
    return {
        "import_seconds": import_end - import_start,
        "port_open_seconds": port_open - start,
        "models_warm_seconds": models_warm - start,
    }


def _open_graphs(models: Path) -> Mapping[str, float]:
    """Seconds to open all graphs, as they are and after ONNX Runtime has optimised and saved them."""
    optimise = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    no_optimisation = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graphs = sorted(models.glob("*/*/model.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        optimised_graphs = [Path(folder) / f"{index}.onnx" for index in range(len(graphs))]
        for graph, target in zip(graphs, optimised_graphs, strict=True):
            _open(graph, optimise, target)
        return {
            "open_graphs_seconds": sum(_open(graph, optimise) for graph in graphs),
            "open_optimised_graphs_seconds": sum(_open(graph, no_optimisation) for graph in optimised_graphs),
        }


def _open(graph: Path, level: onnxruntime.GraphOptimizationLevel, save_to: Path | None = None) -> float:
    """Seconds to open a session, which writes the optimised graph to `save_to`."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    start = time.perf_counter()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - start


def _succeeds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
