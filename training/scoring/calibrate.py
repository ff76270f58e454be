"""Calibrate: what a stage makes of the held-out in-distribution split, its anomaly scores and its temperature."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bundle import Calibration, get_score, load_calibrations, save_calibrations
from training.errors import RunError
from training.evaluation import tune_temperature
from training.run import Run
from training.scoring.logits import LOGITS
from training.scoring.score import Outputs


def anomalies(outputs: Outputs, scores: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Each score's values turned so that larger is more anomalous, float64 `[N]`."""
    return {name: np.asarray(get_score(name).anomaly(outputs[name].astype(np.float64))) for name in scores}


def save_stage_calibration(run: Run, stage: str, outputs: Outputs) -> Mapping[str, Calibration]:
    """Save the calibration of every score from a stage's `outputs` on the calibration split."""
    scores = run.recipe.export.scores
    calibrations = {name: Calibration.from_scores(values) for name, values in anomalies(outputs, scores).items()}
    run.calibration_path.mkdir(exist_ok=True)
    save_calibrations(run.calibration_path / f"{stage}.npz", calibrations)
    return calibrations


def stage_calibration(run: Run, stage: str) -> Mapping[str, Calibration]:
    """The calibration kept for `stage`; RunError if the stage is not calibrated."""
    path = run.calibration_path / f"{stage}.npz"
    if not path.exists():
        raise RunError(str(run.path), f"stage '{stage}' is not calibrated", f"Run `calibrate {run.path}` first")
    return load_calibrations(path)


def save_temperature(run: Run, stage: str, outputs: Outputs, targets: NDArray[np.int64]) -> float:
    """Tune and keep a stage's temperature from its `logits` `[N, K]` for the calibration split, of classes `[N]`.

    It is for the report's probabilities alone: scores and their calibration are untempered, and p-values of scores
    that were tuned on the calibration split itself would lose their guarantee.
    """
    temperature = tune_temperature(outputs[LOGITS], targets)
    run.temperature_path(stage).write_text(f"{temperature!r}\n", encoding="utf-8")
    return temperature


def stage_temperature(run: Run, stage: str) -> float:
    """The temperature kept for `stage`; RunError when it was calibrated without one, or not at all."""
    path = run.temperature_path(stage)
    if not path.exists():
        raise RunError(str(run.path), f"stage '{stage}' has no temperature", f"Run `calibrate {run.path}` first")
    return float(path.read_text(encoding="utf-8"))
