"""Images or symbols per second of density and language models, in torch and in ONNX Runtime."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch

from benchmarks.inputs import graph_inputs
from benchmarks.results import report
from benchmarks.upper_limit import units_per_second
from bundle import Bundle, load_bundle
from training.models.build import build_model, scored_model
from training.models.score_heads import ScoredModel
from training.recipe import load_recipe

BATCH_SIZES = (1, 32)


def measure(rounds: int, seconds: float, models: Path) -> None:
    """Report the throughput of torch and ONNX Runtime at each batch size, and their ratio."""
    bundles = [load_bundle(path.parent) for path in sorted(models.glob("*/*/manifest.json"))]
    figures = {
        bundle.manifest.name: _throughputs(bundle, rounds, seconds)
        for bundle in bundles
        if bundle.manifest.likelihood is not None
    }
    if not figures:
        raise SystemExit(f"{models} contains no density model and no language model")
    report("likelihoods", {"rounds": rounds, **figures}, ("torch", "onnxruntime", "numpy"))


@torch.inference_mode()
def _throughputs(bundle: Bundle, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The figures of one bundle by batch size."""
    sample = next(bundle.path / name for name in ("sample.png", "sample.txt") if name in bundle.manifest.files)
    single = graph_inputs(bundle, sample)
    # The symbols of a text are its tokens and its end.
    units, unit = (single["tokens"].shape[1] + 1, "symbols") if "tokens" in single else (1, "images")
    model = _network(bundle)
    session = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    scores = [score.output for score in bundle.manifest.scores]
    figures: dict[str, dict[str, float]] = {}
    for size in BATCH_SIZES:
        batch = {name: np.repeat(array, size, axis=0) for name, array in single.items()}
        tensors = [torch.from_numpy(array) for array in batch.values()]
        runs: dict[str, Callable[[], object]] = {
            "torch": partial(model, *tensors),
            "onnxruntime": partial(session.run, None, batch),
            # Batches without a request for an explanation do not fetch the parts of the scores.
            "onnxruntime_scores_only": partial(session.run, scores, batch),
        }
        results = [
            {name: units_per_second(run, size * units, seconds) for name, run in runs.items()} for _ in range(rounds)
        ]
        figures[f"batch_{size}"] = {
            **{f"{name}_{unit}_per_second": median(result[name] for result in results) for name in runs},
            "onnxruntime_speedup": median(result["onnxruntime"] / result["torch"] for result in results),
        }
    return figures


def _network(bundle: Bundle) -> ScoredModel:
    """The bundle's network with random weights: they do not affect its speed."""
    recipe = load_recipe(bundle.path / "recipe.yaml")
    size = None if bundle.text_encoder is None else bundle.text_encoder.vocabulary_size
    return scored_model(recipe, build_model(recipe, 0, size)).eval()
