"""The first run on a GPU: the speed of ONNX Runtime, the service and training within a few minutes, without network.

Usage: `python -m benchmarks gpu` (`make gpu`). One JSON file is written after every step, so that an interrupted run
leaves its results. A step that fails is recorded with its error, and the next one begins. `--dry` runs every step for a
moment on whatever provider there is; its figures mean nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.processes import NotReady, free_port, run_module, running
from bundle import Bundle, load_bundle
from service.cpu_count import available_cores
from service.inference.engine import Engine, open_engine
from service.inference.engine_thread import EngineThread
from service.inference.onnx_session import open_session
from service.inference.providers import CPU, CudaOptions, Provider, choose_provider
from service.inputs.modalities import modality_of

ROOT = Path(__file__).parents[1]
SIZES = (1, 16, 64, 256, 1024)
OPTIONS: Mapping[str, CudaOptions] = {
    "float32": CudaOptions(),
    "float32 exhaustive": CudaOptions(convolution_search="exhaustive"),
    "float32 nhwc": CudaOptions(nhwc=True),
    "tf32": CudaOptions(tf32=True),
    "tf32 nhwc": CudaOptions(tf32=True, nhwc=True),
}
CONNECTIONS = (1, 2, 32, 256)
FRONT_ENDS = (1, 2, 4, 8, 16)
_LEAST_GAIN = 1.05
"""A further front end that brings a smaller factor than this ends the step: the device is saturated."""
RECIPE = "training/recipes/cifar10-wrn-scratch.yaml"
_TESTS = ("tests/service/inference/test_cuda.py", "tests/training/objectives/test_joint_confidence.py")

# The least seconds that a step needs; a run that has less time left skips the step.
_STEP_SECONDS = 5


class FirstRun:
    """The steps, their deadline and their results."""

    def __init__(self, out: Path, seconds: float, models: Path, data: Path | None, *, dry: bool) -> None:
        """Prepare the run.

        Args:
            out: The JSON file.
            seconds: The time for all steps; training takes what the others leave.
            models: The model repository.
            data: The folder with the recipe's data; None: training is measured on random images.
            dry: Whether to run every step for a moment only.
        """
        self._end = time.monotonic() + seconds
        self._out = out
        self._models = models
        self._data = data
        self._dry = dry
        self._moment = 0.02 if dry else 0.4
        self._sizes = SIZES[:2] if dry else SIZES
        self.results: dict[str, Any] = {"dry": dry}
        self._provider = Provider(CPU, required=True)

    def run(self, steps: Sequence[Callable[[], Any]] = ()) -> None:
        """Run `steps`, by default all."""
        all_steps: Sequence[Callable[[], Any]] = [
            self.machine,
            self.placement,
            self.parity,
            self.batch_size_changes,
            self.throughput,
            self.streams,
            self.graphs,
            self.service,
            self.front_ends,
            self.tests,
            self.training,
        ]
        for step in steps or all_steps:
            name = step.__name__
            started = time.monotonic()
            try:
                result = step() if self._left > _STEP_SECONDS else {"skipped": "no time left"}
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}"[:2000]}
            self.results[name] = {"seconds": round(time.monotonic() - started, 1), "result": result}
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._out.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
            print(json.dumps({name: self.results[name]}), flush=True)

    @property
    def _left(self) -> float:
        return self._end - time.monotonic()

    def machine(self) -> dict[str, Any]:
        """The GPU, the driver, the versions, and the provider that all other steps use."""
        self._provider, note = choose_provider("auto" if self._dry else "cuda")
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
        try:
            gpu = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            gpu = str(error)
        return {
            "gpu": gpu,
            "cores": available_cores(),
            "python": sys.version.split()[0],
            "onnxruntime": onnxruntime.__version__,
            "provider": self._provider.first,
            "note": note,
        }

    def placement(self) -> dict[str, Any]:
        """The number of operators that each provider computes, by bundle."""
        return {
            name: {p: nodes.total() for p, nodes in Engine(bundle, self._provider, cores=1).nodes.items()}
            for name, bundle in self._bundles().items()
        }

    def parity(self) -> dict[str, Any]:
        """The largest difference of each image bundle's scores from the CPU's, with and without TF32."""
        differences: dict[str, Any] = {}
        for name, bundle in self._image_bundles().items():
            names = [score.output for score in bundle.manifest.scores]
            feed = self._feed(bundle, 16 if self._dry else 64)
            expected = open_session(bundle, Provider(CPU, required=True), available_cores()).run(names, feed)
            for tf32 in (False, True):
                rows = open_session(bundle, self._with(CudaOptions(tf32=tf32)), 1).run(names, feed)
                largest = {n: float(np.max(np.abs(a - b))) for n, a, b in zip(names, rows, expected, strict=True)}
                differences.setdefault(name, {})["tf32" if tf32 else "float32"] = largest
        return differences

    def batch_size_changes(self) -> dict[str, Any]:
        """Milliseconds of a call of one session with the same batch size all the time, and with changing ones."""
        figures = {}
        for name, bundle in self._image_bundles().items():
            session = open_session(bundle, self._provider, 1)
            outputs = [score.output for score in bundle.manifest.scores]
            calls = [partial(session.run, outputs, self._feed(bundle, size)) for size in (16, 15)]
            same = self._milliseconds(calls[0])
            figures[name] = {"same": same, "changing": self._milliseconds(partial(_call_all, calls)) / 2}
        return figures

    def throughput(self) -> dict[str, Any]:
        """Images per second of ONNX Runtime by bundle, options and batch size."""
        figures: dict[str, Any] = {}
        for name, bundle in self._image_bundles().items():
            outputs = [score.output for score in bundle.manifest.scores]
            for label, options in OPTIONS.items():
                rates = figures.setdefault(name, {}).setdefault(label, {})
                for size in self._sizes:
                    # A session each: one that sees several sizes would plan its convolutions again.
                    run = partial(open_session(bundle, self._with(options), 1).run, outputs, self._feed(bundle, size))
                    rates[size] = round(1e3 * size / self._milliseconds(run))
        return figures

    def streams(self) -> dict[str, Any]:
        """Images per second of one session and of two at the same time: whether one leaves the device idle."""
        figures: dict[str, Any] = {}
        size = 16 if self._dry else 256
        for name, bundle in self._image_bundles().items():
            outputs, feed = [score.output for score in bundle.manifest.scores], self._feed(bundle, size)
            for count in (1, 2):
                calls = [partial(open_session(bundle, self._provider, 1).run, outputs, feed) for _ in range(count)]
                with ThreadPoolExecutor(count) as pool:
                    milliseconds = list(pool.map(self._milliseconds, calls))
                figures.setdefault(name, {})[f"{count} sessions"] = round(sum(1e3 * size / ms for ms in milliseconds))
        return figures

    def graphs(self) -> dict[str, Any]:
        """Milliseconds of the engine's batches, plain and by CUDA graphs, on the thread that would serve."""
        figures: dict[str, Any] = {}
        largest = 16 if self._dry else 256
        for name, bundle in self._image_bundles().items():
            for graphs in (False, True):
                thread = EngineThread(name)
                provider = self._with(CudaOptions(graphs=graphs))
                opened = partial(open_engine, bundle, provider, cores=1, max_batch=largest)
                started = time.perf_counter()
                engine = thread.call(opened)
                figure = {"graphs": engine.uses_cuda_graphs, "load_seconds": time.perf_counter() - started}
                for size in engine.fixed_sizes or (1, 16, largest):
                    batch = engine.modality.sample_batch(size)
                    call = partial(engine.run, batch)
                    figure[str(size)] = thread.call(partial(self._milliseconds, call))
                thread.post(engine.close)
                thread.end()
                figures.setdefault(name, {})["graphs" if graphs else "plain"] = figure
        return figures

    def service(self) -> dict[str, Any]:
        """The service by connections, with one image and with 64 images a request, with and without CUDA graphs."""
        connections = CONNECTIONS[:2] if self._dry else CONNECTIONS
        return {
            f"graphs {graphs}": self._load_on_service(connections, {"OOD_CUDA_GRAPHS": graphs})
            for graphs in ("false", "true")
        }

    def front_ends(self) -> dict[str, Any]:
        """The service with more and more front ends before one engine process, until a further one gains little."""
        figures: dict[str, Any] = {}
        best = 0.0
        for workers in (1, 2) if self._dry else FRONT_ENDS:
            if workers > available_cores():
                break
            environment = {"OOD_WORKERS": str(workers), "OOD_ENGINE_PROCESS": "on", "OOD_CUDA_GRAPHS": "true"}
            figure = self._load_on_service(CONNECTIONS[1:2] if self._dry else CONNECTIONS[-1:], environment)
            figures[f"{workers} front ends"] = figure
            rate = max(load.get("requests_per_second", 0.0) for load in figure.values())
            if rate < _LEAST_GAIN * best and not self._dry:
                break
            best = max(best, rate)
        return figures

    def _load_on_service(self, connections: Sequence[int], environment: Mapping[str, str]) -> dict[str, Any]:
        """The load generator's figures of a service with the settings `environment`, by connections and request."""
        name, bundle = next(iter(self._image_bundles().items()))
        seconds = 0.3 if self._dry else 4.0
        figures: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            many = Path(folder) / "many.json"
            many.write_text(json.dumps({"inputs": [modality_of(bundle).example()] * 64}), encoding="utf-8")
            port = free_port()
            address = ("127.0.0.1", str(port), f"/v1/models/{name}/score")
            models = str(self._models.resolve())
            command = [sys.executable, "-m", "service", "--port", str(port), "--models", models]
            settings = {
                "OOD_PROVIDER": "auto" if self._dry else "cuda",
                "OOD_ACCESS_LOG": "false",
                "OOD_MAX_BATCH": "16" if self._dry else "256",
                # No request of the largest load is rejected.
                "OOD_QUEUE_SIZE": str(64 * CONNECTIONS[-1]),
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                **environment,
            }
            try:
                with running(command, settings, partial(_is_ready, port)):
                    for count in connections:
                        for label, body in (("1 image", bundle.path / "sample.png"), ("64 images", many)):
                            load = run_module("benchmarks.load", *address, str(body), str(count), str(seconds))
                            figures[f"{count} connections, {label}"] = load
            except NotReady as error:
                figures["error"] = {"error": str(error)}
        return figures

    def tests(self) -> str:
        """The last line of the tests that need a GPU."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(_TESTS[:1] if self._dry else _TESTS),
        ]
        run = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(_STEP_SECONDS, self._left), check=False
        )
        return (run.stdout.strip().splitlines() or [run.stderr[-500:]])[-1]

    def training(self) -> dict[str, Any]:
        """Training steps of WRN-40-2 on random images; with data, the paper's schedule for the remaining time."""
        figures: dict[str, Any] = {"random images": _training_step(3 if self._dry else 100)}
        if self._data is not None and not self._dry:
            command = [sys.executable, "-m", "training", "run", RECIPE, "--data", str(self._data.resolve()), "--resume"]
            try:
                # The run's checkpoints stay in runs/, so that a later run resumes it.
                run = subprocess.run(
                    command,
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=max(_STEP_SECONDS, self._left),
                    check=False,
                )
                figures["schedule"] = {
                    "finished": run.returncode == 0,
                    "output": run.stdout[-2000:] + run.stderr[-2000:],
                }
            except subprocess.TimeoutExpired as error:
                figures["schedule"] = {"finished": False, "output": str(error.stdout or b"")[-2000:]}
        return figures

    def _bundles(self) -> dict[str, Bundle]:
        paths = sorted(path.parent for path in self._models.glob("*/*/manifest.json"))
        return {path.parent.name: load_bundle(path) for path in paths}

    def _image_bundles(self) -> dict[str, Bundle]:
        bundles = {name: bundle for name, bundle in self._bundles().items() if bundle.manifest.modality == "image"}
        return dict(list(bundles.items())[: 1 if self._dry else 3])

    def _with(self, options: CudaOptions) -> Provider:
        return Provider(self._provider.first, required=True, cuda=options)

    def _feed(self, bundle: Bundle, size: int) -> dict[str, Any]:
        modality = modality_of(bundle)
        return modality.feed(modality.sample_batch(size))

    def _milliseconds(self, run: Callable[[], object]) -> float:
        """The median time of a call, after a first one."""
        run()
        times: list[float] = []
        until = time.perf_counter() + self._moment
        while len(times) < 3 or time.perf_counter() < until:
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return 1e3 * float(np.median(times))


def _call_all(functions: Sequence[Callable[[], Any]]) -> None:
    for function in functions:
        function()


def _is_ready(port: int) -> bool:
    import httpx  # noqa: PLC0415

    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _training_step(steps: int) -> dict[str, Any]:
    """Milliseconds of a training step of 128 and 256 random images, by what changes the speed on a GPU."""
    import torch  # noqa: PLC0415
    from torch.nn.utils import convert_conv2d_weight_memory_format  # noqa: PLC0415

    from training.architectures import WideResNet  # noqa: PLC0415
    from training.fitting.hardware import compile_mode  # noqa: PLC0415

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    rows, depth = (384, 40) if device.type == "cuda" else (4, 10)
    variants = [
        ("plain", False, False, False),
        ("benchmark", True, False, False),
        ("benchmark, fused", True, True, False),
    ]
    if device.type == "cuda":
        variants.append(("benchmark, fused, compiled", True, True, True))
    for label, benchmark, fused, compiled in variants:
        torch.backends.cudnn.benchmark = benchmark
        network = WideResNet(num_classes=10, depth=depth, widen_factor=2).to(device)
        convert_conv2d_weight_memory_format(network, torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, fused=fused)
        compute = torch.compile(network, mode=compile_mode("image")) if compiled else network
        images = torch.randn((rows, 3, 32, 32), device=device).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(0, 10, (rows,), device=device)
        times: list[float] = []
        for _ in range(steps):
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16):
                logits = compute(images)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]  # torch's gap
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        figures[label] = round(1e3 * float(np.median(times)), 2)
    return figures


def measure(out: Path, seconds: float, models: Path, data: Path | None, *, dry: bool) -> None:
    """Run all steps and write `out`."""
    first_run = FirstRun(out, seconds, models, data, dry=dry)
    first_run.run()
    failed = [
        name for name, step in first_run.results.items() if isinstance(step, dict) and "error" in str(step["result"])
    ]
    if failed:
        raise SystemExit(f"steps with errors: {', '.join(failed)}; see {out}")
