"""Likelihoods: images or symbols a second of densities and language models, torch beside ONNX Runtime."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.ceiling import per_second
from benchmarks.inputs import one_input
from benchmarks.results import report
from bundle import Bundle, load_bundle
from training.models.build import build_model, scored_model
from training.models.score_heads import ScoredModel
from training.recipe import load_recipe

BATCHES = (1, 32)


def measure(rounds: int, seconds: float, models: Path) -> None:
    """Print and keep the throughput of both at both batch sizes, and the ratio of ONNX Runtime to torch."""
    found = [load_bundle(path.parent) for path in sorted(models.glob("*/*/manifest.json"))]
    figures: dict[str, Any] = {"rounds": rounds}
    for bundle in found:
        if bundle.manifest.likelihood is not None:
            figures |= _compared(bundle, rounds, seconds)
    if len(figures) == 1:
        raise SystemExit(f"{models} holds no density and no language model")
    report("likelihoods", figures, ("torch", "onnxruntime", "numpy"))


@torch.inference_mode()
def _compared(bundle: Bundle, rounds: int, seconds: float) -> dict[str, float]:
    sample = next(bundle.path / name for name in ("sample.png", "sample.txt") if name in bundle.manifest.files)
    one = one_input(bundle, sample)
    # A text is as many symbols as it has tokens, and its end.
    units = one["tokens"].shape[1] + 1 if "tokens" in one else 1
    model = _network(bundle)
    session = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    scores = [score.output for score in bundle.manifest.scores]
    figures: dict[str, float] = {}
    for batch in BATCHES:
        feed = {name: np.repeat(array, batch, axis=0) for name, array in one.items()}
        tensors = [torch.from_numpy(array) for array in feed.values()]
        runs: dict[str, Callable[[], object]] = {
            "torch": partial(model, *tensors),
            "onnx runtime": partial(session.run, None, feed),
            # What `explain` is made of is fetched with every batch: it must cost nothing.
            "onnx runtime, scores without their parts": partial(session.run, scores, feed),
        }
        taken = [{name: per_second(run, batch * units, seconds) for name, run in runs.items()} for _ in range(rounds)]
        what = f"{bundle.manifest.name}, batch {batch}, {'symbols' if units > 1 else 'images'}/s"
        figures |= {f"{what}, {name}": median(each[name] for each in taken) for name in runs}
        figures[f"{what}, onnx runtime / torch"] = median(each["onnx runtime"] / each["torch"] for each in taken)
    return figures


def _network(bundle: Bundle) -> ScoredModel:
    """The bundle's network with random weights: only its speed counts."""
    recipe = load_recipe(bundle.path / "recipe.yaml")
    size = None if bundle.text_encoder is None else bundle.text_encoder.vocabulary_size
    return scored_model(recipe, build_model(recipe, 0, size)).eval()
