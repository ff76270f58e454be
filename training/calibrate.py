"""Calibrate: the anomaly scores of the held-out in-distribution split, stage by stage."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bundle import Calibration, get_score, load_calibrations, save_calibrations
from training.errors import RunError
from training.run import Run
from training.scoring import Outputs


def anomalies(outputs: Outputs, scores: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Each score's values turned so that larger is more anomalous, float64 `[N]`."""
    return {name: np.asarray(get_score(name).anomaly(outputs[name].astype(np.float64))) for name in scores}


def calibrate(run: Run, stage: str, outputs: Outputs) -> Mapping[str, Calibration]:
    """Keep the calibration of every score from a stage's `outputs` on the calibration split."""
    scores = run.recipe.export.scores
    calibrations = {name: Calibration.from_scores(values) for name, values in anomalies(outputs, scores).items()}
    run.calibration_path.mkdir(exist_ok=True)
    save_calibrations(run.calibration_path / f"{stage}.npz", calibrations)
    return calibrations


def stage_calibration(run: Run, stage: str) -> Mapping[str, Calibration]:
    """The calibration kept for `stage`; RunError when `calibrate` has not run."""
    path = run.calibration_path / f"{stage}.npz"
    if not path.exists():
        raise RunError(str(run.path), f"stage '{stage}' is not calibrated", f"Run `calibrate {run.path}` first")
    return load_calibrations(path)
