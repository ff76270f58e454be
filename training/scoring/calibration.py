"""Calibration of a stage on the held-out in-distribution split: its scores' calibrations and its temperature.

Calibrations are computed twice by design. The run directory holds those of the torch model, which the report of every
stage uses. An exported bundle holds those of its own ONNX graph, because p-values must compare a score with scores
that the same graph computed.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle import Calibration, get_score, load_calibrations, save_calibrations
from training.errors import RunError
from training.evaluation import tune_temperature
from training.run import Run
from training.scoring.batch_scoring import Outputs
from training.scoring.logits import LOGITS

DEFAULT_ALPHA = 0.01


def attainable_alpha(n: int) -> float:
    """The false-flag rate to calibrate `n` scores for: `DEFAULT_ALPHA`, or the smallest rate that `n` scores allow.

    That rate is 1 / (n + 1), rounded up to three decimals.
    """
    smallest = math.ceil(1000 / (n + 1)) / 1000
    return max(DEFAULT_ALPHA, smallest)


def anomalies(outputs: Outputs, scores: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Anomaly score name -> values float64 `[N]` of the scored `outputs`; larger is more anomalous."""
    return {name: np.asarray(get_score(name).anomaly(outputs[name].astype(np.float64))) for name in scores}


def calibrations_from(outputs: Outputs, scores: Sequence[str]) -> dict[str, Calibration]:
    """The calibration of every score from a model's `outputs` on the calibration split."""
    return {name: Calibration.from_scores(values) for name, values in anomalies(outputs, scores).items()}


def save_calibration(run: Run, stage: str, outputs: Outputs) -> None:
    """Write the calibrations of `stage` to the run directory, from its `outputs` on the calibration split."""
    run.calibration_path.mkdir(exist_ok=True)
    save_calibrations(run.calibration_path / f"{stage}.npz", calibrations_from(outputs, run.recipe.export.scores))


def load_calibration(run: Run, stage: str) -> Mapping[str, Calibration]:
    """The saved calibrations of `stage`; RunError if the stage is not calibrated."""
    path = run.calibration_path / f"{stage}.npz"
    if not path.exists():
        raise RunError(str(run.path), f"stage '{stage}' is not calibrated", f"Run `calibrate {run.path}` first")
    return load_calibrations(path)


def save_temperature(run: Run, stage: str, outputs: Outputs, targets: NDArray[np.int64]) -> None:
    """Tune the temperature of `stage` on the calibration split and write it to the run directory.

    The temperature applies to the report's probabilities only. Scores and their calibrations are computed without it:
    p-values of scores that were tuned on the calibration split would lose their guarantee.

    Args:
        run: The run directory.
        stage: The stage's name.
        outputs: The stage's outputs on the calibration split, with `logits` `[N, K]`.
        targets: The classes `[N]` of the calibration split.
    """
    temperature = tune_temperature(outputs[LOGITS], targets)
    run.temperature_path(stage).write_text(f"{temperature!r}\n", encoding="utf-8")


def load_temperature(run: Run, stage: str) -> float:
    """The saved temperature of `stage`; RunError if there is none."""
    path = run.temperature_path(stage)
    if not path.exists():
        raise RunError(str(run.path), f"stage '{stage}' has no temperature", f"Run `calibrate {run.path}` first")
    return float(path.read_text(encoding="utf-8"))
