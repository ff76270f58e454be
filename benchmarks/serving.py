"""Serving: the service over HTTP beside ONNX Runtime alone, same model, same cores, interleaved in one run."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.models import NETWORKS, make_bundle
from benchmarks.results import report
from bundle import MANIFEST_NAME, Bundle, ImageInput, decode_image, load_bundle, pad_tokens

PORT = 8765
CONCURRENCY = 32


def measure(rounds: int, seconds: float, model: str) -> None:
    """Print and keep the share of the ceiling at concurrency 32 and the latency added at concurrency 1.

    `model` is one of `NETWORKS`, or a bundle's folder, of which its own sample is sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        bundle = load_bundle(_bundle(model, repository))
        name = bundle.manifest.name
        body = _sample(bundle, repository)
        np.savez(repository / "input.npz", **one_input(bundle, body))  # type: ignore[arg-type]  # to the stub a name could be allow_pickle
        path = f"/v1/models/{name}/score"
        with service(repository):
            load(path, body, CONCURRENCY, 2)
            taken = [one_round(bundle.model_path, repository / "input.npz", path, body, seconds) for _ in range(rounds)]
    middle = {key: median(figures[key] for figures in taken) for key in taken[0]}
    report(f"serving-{name}", {"rounds": rounds, **middle}, ("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"))
    if middle["errors"]:
        raise SystemExit("the service answered with errors: the figures do not count")


def _bundle(model: str, repository: Path) -> Path:
    """The bundle in `repository`: made of random weights, or a copy of the one in the folder `model`."""
    if model in NETWORKS:
        return make_bundle(model, repository)
    source = Path(model)
    if not (source / MANIFEST_NAME).exists():
        raise SystemExit(f"unknown model {model}: choose among {', '.join(NETWORKS)}, or name a bundle's folder")
    target = repository / source.resolve().parent.name / source.name
    shutil.copytree(source, target)
    return target


def _sample(bundle: Bundle, folder: Path) -> Path:
    """The bundle's own sample file, or for one without a picture of noise."""
    for name in ("sample.png", "sample.txt"):
        if name in bundle.manifest.files:
            return bundle.path / name
    picture = folder / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return picture


def one_input(bundle: Bundle, body: Path) -> dict[str, NDArray[Any]]:
    """What the graph takes for the input in the file `body`, as serving prepares it."""
    if bundle.text_encoder is not None:
        tokens, lengths = pad_tokens([bundle.text_encoder.encode(body.read_text(encoding="utf-8"))])
        return {"tokens": tokens, "lengths": lengths}
    spec = bundle.manifest.input
    assert isinstance(spec, ImageInput), "a model without a tokenizer takes images"
    return {"images": decode_image(body.read_bytes(), spec)[None]}


def one_round(graph: Path, inputs: Path, path: str, body: Path, seconds: float) -> dict[str, float]:
    """Ceiling, loaded service and lone requests, one after the other."""
    ceiling = run("benchmarks.ceiling", str(graph), str(inputs), str(seconds))
    loaded = load(path, body, CONCURRENCY, seconds)
    lone = load(path, body, 1, seconds / 2)
    best = max(ceiling["inputs_per_second"].values())
    return {
        "onnx runtime alone, inputs/s": best,
        "service at 32, inputs/s": loaded["requests_per_second"],
        "share of the ceiling": loaded["requests_per_second"] / best,
        "service at 32, p50 ms": 1e3 * loaded["p50"],
        "service at 32, p99 ms": 1e3 * loaded["p99"],
        "bare session.run, p50 ms": 1e3 * ceiling["median_seconds"],
        "service at 1, p50 ms": 1e3 * lone["p50"],
        "added at 1, p50 ms": 1e3 * (lone["p50"] - ceiling["median_seconds"]),
        "errors": loaded["errors"] + lone["errors"],
    }


def load(path: str, body: Path, concurrency: int, seconds: float) -> dict[str, Any]:
    """One run of the load generator in a process of its own."""
    return run("benchmarks.load", "127.0.0.1", str(PORT), path, str(body), str(concurrency), str(seconds))


def run(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a module prints as its last argument's seconds go by."""
    patience = 60 + 2 * float(arguments[-1])
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=patience)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def service(repository: Path) -> Iterator[None]:
    """A service process on `repository`, ready."""
    command = [
        sys.executable,
        "-m",
        "service",
        "--models",
        str(repository),
        "--port",
        str(PORT),
        "--log-level",
        "warning",
    ]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        raise SystemExit("the service did not start") from None
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
