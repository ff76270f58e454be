"""Detection and error of a recipe's stages over several seeds."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.results import CONSOLE, write_result
from training import steps
from training.evaluation import Report, SetResult
from training.evaluation.report import MEAN
from training.recipe import load_recipe
from training.run import Run

PACKAGES = ("torch", "lightning", "onnxruntime")


def measure(recipe: Path, data: Path, seeds: Sequence[int]) -> None:
    """Train, calibrate and evaluate `recipe` once per seed; print means and deviations and write every seed's figures.

    The seed decides the splits, the initial weights, the order of the examples and the draws of the evaluation.

    Args:
        recipe: A recipe file.
        data: The folder that the recipe's paths start from.
        seeds: The seeds, at least two.
    """
    reports = [_evaluate(recipe, data, seed) for seed in seeds]
    name = f"seeds-{recipe.stem}"
    CONSOLE.print(_summary(name, reports))
    figures = {"seeds": list(seeds), **figures_of(reports)}
    write_result(name, figures, {package: version(package) for package in PACKAGES})


def figures_of(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures in percent, each a list with one value of each report.

    Args:
        reports: Reports of the same recipe.

    Returns:
        `error_percent`: stage -> errors. `sets`: set or mean over sets -> stage -> score -> metric -> values. Only
        texts have the metric `fpr90`, which follows the tie rule of the authors' code.
    """
    first = reports[0]
    errors = {stage: [report.error[stage] for report in reports] for stage in first.error}
    sets: dict[str, Any] = {}
    for result in first.results:
        rows = [report.find(result.set, result.stage, result.score) for report in reports]
        scores = sets.setdefault(result.set, {}).setdefault(result.stage, {})
        scores[result.score] = dict(_metrics(rows))
    return {"error_percent": errors, "sets": sets}


def _metrics(rows: Sequence[SetResult]) -> Iterator[tuple[str, list[float]]]:
    for metric in ("fpr95", "auroc", "aupr"):
        yield metric, [getattr(row, metric).mean for row in rows]
    rates = [row.rates_at(0.9) for row in rows]
    if None not in rates:
        yield "fpr90", [rate.authors.mean for rate in rates if rate is not None]


def _summary(name: str, reports: Sequence[Report]) -> Table:
    """The mean AUROC over the test sets, of every stage and score: mean and standard deviation over the reports."""
    table = Table("stage", "score", "AUROC", title=name)
    for result in reports[0].results:
        if result.set == MEAN:
            values = [report.find(MEAN, result.stage, result.score).auroc.mean for report in reports]
            table.add_row(result.stage, result.score, f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
    return table


def _evaluate(recipe: Path, data: Path, seed: int) -> Report:
    """The report of a run in `runs/<recipe>-seed-<seed>`, which continues after an interruption and is not repeated."""
    path = Path("runs") / f"{recipe.stem}-seed-{seed}"
    run = Run.create(path, load_recipe(recipe, [f"seed={seed}"]), overwrite=False)
    report = run.report_path / "report.json"
    if not report.exists():
        locations = steps.data_locations(data)
        steps.fit_run(run, locations, resume=True)
        steps.calibrate_run(run, locations)
        steps.evaluate_run(run, locations)
    return Report.from_json(report.read_text(encoding="utf-8"))
