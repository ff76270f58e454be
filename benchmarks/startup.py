"""Start-up: from the command to a port that answers, and to warm models; what opening the graphs takes of it."""

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
    """Print and keep the seconds that a service of all `models` takes to start, step by step."""
    taken = [{**_start(models), **_open_graphs(models)} for _ in range(rounds)]
    middle = {key: median(figures[key] for figures in taken) for key in taken[0]}
    count = len(list(models.glob("*/*/model.onnx")))
    report("startup", {"rounds": rounds, "models": count, **middle}, ("onnxruntime", "fastapi", "uvicorn", "numpy"))


def _start(models: Path) -> Mapping[str, float]:
    """One service, from its command on."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import service.app"], cwd=ROOT, check=True, timeout=60)
    imported = time.perf_counter()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "service", "--models", str(models.resolve()), "--port", str(port)]
    started = time.perf_counter()
    # The working folder is another: this checkout must come first, wherever the package is installed from.
    with running(command, {"PYTHONPATH": str(ROOT)}, ready=lambda: _answers(f"{address}/healthz")):
        alive = time.perf_counter()
        while not _answers(f"{address}/readyz"):
            time.sleep(0.02)
        ready = time.perf_counter()
    return {
        "python and imports, s": imported - begun,
        "until the port answers, s": alive - started,
        "until every model is warm, s": ready - started,
    }


def _open_graphs(models: Path) -> Mapping[str, float]:
    """All graphs as they are served, and as ONNX Runtime wrote them down when it had optimised them."""
    optimised = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    as_it_is = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graphs = sorted(models.glob("*/*/model.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        kept = [Path(folder) / f"{index}.onnx" for index in range(len(graphs))]
        for graph, copy in zip(graphs, kept, strict=True):
            _open(graph, optimised, copy)
        return {
            "of it opening graphs, s": sum(_open(graph, optimised) for graph in graphs),
            "opening them optimised before, s": sum(_open(copy, as_it_is) for copy in kept),
        }


def _open(graph: Path, level: onnxruntime.GraphOptimizationLevel, write_to: Path | None = None) -> float:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    begun = time.perf_counter()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - begun


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).is_success
    except httpx.HTTPError:
        return False
