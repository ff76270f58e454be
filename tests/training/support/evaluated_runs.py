"""Runs of a recipe up to the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data import DataLocations
from training.recipe import parse_recipe
from training.run import Run
from training.steps import calibrate_run, evaluate_run, fit_run


def evaluated_run(root: Path, recipe: Mapping[str, Any]) -> tuple[Run, DataLocations]:
    """Train, calibrate and evaluate `recipe` in `root`/run on the data in `root`/data."""
    run = Run.create(root / "run", parse_recipe(dict(recipe), "recipe"), overwrite=False)
    locations = DataLocations(data_dir=root / "data", cache_dir=root / "cache")
    fit_run(run, locations, resume=False)
    calibrate_run(run, locations)
    evaluate_run(run, locations)
    return run, locations
