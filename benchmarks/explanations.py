"""The time of a batch with and without the outputs that explain its scores."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.models import NETWORKS, make_bundle
from benchmarks.recurrence import compare
from benchmarks.results import report
from bundle import load_bundle
from service.inference.engine import Engine
from service.inference.providers import CPU, Provider

BATCH_SIZES = (1, 16)


def measure(rounds: int, seconds: float) -> None:
    """Report the milliseconds of both for each network with random weights, on one core, and their ratio."""
    figures: dict[str, object] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            bundle = load_bundle(make_bundle(name, Path(folder), evidence=True))
            engine = Engine(bundle, Provider(CPU, required=True), cores=1)
            for size in BATCH_SIZES:
                images = list(np.random.default_rng(0).integers(0, 256, (size, 32, 32, 3), dtype=np.uint8))
                runs = {"scores": partial(engine.run, images), "evidence": partial(engine.explain, images)}
                figures[f"{name}_batch_{size}"] = compare(runs, rounds, seconds)
    report("explanations", figures, ("onnxruntime", "numpy"))
