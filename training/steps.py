"""The steps of a training run, each from the run directory to the run directory, as the command line calls them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training import fit as fitting
from training.calibrate import calibrate as keep_calibration
from training.calibrate import stage_calibration
from training.data import (
    DataLocations,
    Images,
    Progress,
    StoredImages,
    load_images,
    load_test_images,
    load_training_data,
)
from training.errors import RunError
from training.export import export_bundle, sample_of
from training.progress import console, progress_bars
from training.recipe import Recipe, Synthetic, load_recipe
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
            model = _model(run, stage, len(data.train.labels))
            keep_calibration(run, stage, _score(model, data.calibration, stage, bars.report))


def evaluate(run: Run, places: DataLocations) -> None:
    """Score every test set with every stage and write the report."""


def export(run: Run, places: DataLocations, models: Path, *, overwrite: bool) -> Path:
    """Write the exported stage's bundle into the repository `models`."""
    recipe, stage = run.recipe, run.recipe.export.stage
    with progress_bars() as bars:
        data = load_training_data(recipe, places, bars.report)
        test = load_test_images(recipe, data.train.labels, places, bars.report)
    roles = {
        "in-distribution train": data.train,
        "in-distribution calibration": data.calibration,
        "in-distribution test": test,
    }
    if data.outliers is not None:
        roles["outliers"] = data.outliers
    console.print("writing the graph and comparing it with torch on real inputs ...")
    return export_bundle(
        run,
        _model(run, stage, len(test.labels)),
        calibration=data.calibration,
        samples=sample_of(test, 1000),
        data=roles,
        evaluation=None,
        models=models,
        overwrite=overwrite,
    )


def _model(run: Run, stage: str, num_classes: int) -> ScoredClassifier:
    return ScoredClassifier(fitting.load_classifier(run, stage, num_classes), run.recipe.export.scores)


def _score(model: ScoredClassifier, images: Images, stage: str, report: Progress) -> Outputs:
    return score_images(model, images.x, progress=lambda done, total: report(f"{stage}: {images.name}", done, total))
