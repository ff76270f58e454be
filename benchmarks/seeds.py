"""Detection and error of a recipe's stages over several seeds: means, and standard deviations between trainings."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.results import report
from training import steps
from training.evaluation import Report
from training.evaluation.report import MEAN
from training.recipe import load_recipe
from training.run import Run

METRICS = ("fpr95", "auroc", "aupr")


def measure(recipe: Path, data: Path, seeds: Sequence[int]) -> None:
    """Train, calibrate and evaluate `recipe` once per seed, and report every stage's means over the test sets.

    The seed decides the splits, the initial weights, the order of the examples and the draws of the evaluation.

    Args:
        recipe: A recipe file.
        data: The folder that the recipe's paths start from.
        seeds: The seeds, at least two.
    """
    values = defaultdict(list)
    for seed in seeds:
        for key, value in figures_of(_evaluate(recipe, data, seed)).items():
            values[key].append(value)
    figures = {
        key: {"mean": float(np.mean(column)), "deviation": float(np.std(column, ddof=1))}
        for key, column in values.items()
    }
    report(f"seeds-{recipe.stem}", {"seeds": len(seeds), **figures}, ("torch", "lightning", "onnxruntime"))


def figures_of(evaluation: Report) -> dict[str, float]:
    """Error, and by every score the mean metrics over the test sets, of every stage, in percent."""
    figures = {f"{stage}_error_percent": error for stage, error in evaluation.error.items()}
    for result in evaluation.results:
        if result.set == MEAN:
            key = f"{result.stage}_{result.score}"
            figures |= {f"{key}_{metric}_percent": getattr(result, metric).mean for metric in METRICS}
            if (rates := result.rates_at(0.9)) is not None:
                figures[f"{key}_fpr90_percent"] = rates.authors.mean
    return figures


def _evaluate(recipe: Path, data: Path, seed: int) -> Report:
    """The report of a run in `runs/<recipe>-seed-<seed>`, which continues if it was interrupted."""
    path = Path("runs") / f"{recipe.stem}-seed-{seed}"
    run = Run.create(path, load_recipe(recipe, [f"seed={seed}"]), overwrite=False)
    locations = steps.data_locations(data)
    steps.fit_run(run, locations, resume=True)
    steps.calibrate_run(run, locations)
    steps.evaluate_run(run, locations)
    return Report.from_json((run.report_path / "report.json").read_text(encoding="utf-8"))
