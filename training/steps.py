"""The steps of a training run, each from the run directory to the run directory, as the command line calls them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import fit as fitting
from training.calibrate import anomalies, stage_calibration
from training.calibrate import calibrate as keep_calibration
from training.data import DataLocations, Images, StoredImages, load_images, load_test_images, load_training_data
from training.progress import console, progress_bars
from training.recipe import Recipe, Source, load_recipe
from training.run import Run
from training.score_heads import ScoredClassifier
from training.scoring import Outputs, score_images


def locations(data: Path | None) -> DataLocations:
    """Where data is, from the command line or the environment."""
    return DataLocations() if data is None else DataLocations(root=data)


def start_run(recipe_path: Path, overrides: Sequence[str], path: Path | None, *, overwrite: bool) -> Run:
    """Validate the recipe and create, or take up, its run directory."""
    recipe = load_recipe(recipe_path, overrides)
    return Run.create(path or Path("runs") / recipe.name, recipe, overwrite=overwrite)


def open_run(path: Path) -> Run:
    """An existing run."""
    return Run.open(path)


def fit(run: Run, places: DataLocations, *, resume: bool) -> None:
    """Load the data and train what is not trained yet."""
    with progress_bars() as bars:
        data = load_training_data(run.recipe, places, bars.report)
    if data.overlap_removed:
        console.print(f"removed {data.overlap_removed} outliers that are (nearly) in-distribution images")
    fitting.fit(run, data.train, data.outliers, resume=resume, announce=console.print)


def calibrate(run: Run, places: DataLocations) -> None:
    """Score the calibration split with every stage."""
    with progress_bars() as bars:
        data = load_training_data(run.recipe, places, bars.report)
        for stage in run.recipe.stages:
            outputs = _score(run, stage, data.calibration, len(data.train.labels), f"{stage}: calibration", bars.report)
            keep_calibration(run, stage, outputs)


def evaluate(run: Run, places: DataLocations) -> None:
    """Score the test sets with every stage and write the report."""


def _score(run: Run, stage: str, images: Images, num_classes: int, name: str, report: Progress) -> Outputs:
    model = ScoredClassifier(fitting.load_classifier(run, stage, num_classes), run.recipe.export.scores)
    return score_images(model, images.x, progress=lambda done, total: report(name, done, total))
