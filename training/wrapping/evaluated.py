"""Evaluation of a wrapped classifier: the same report that a trained one gets, with one stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle import Calibration
from training import evaluation
from training.data import Examples
from training.data.synthetic import synthesise
from training.evaluation import Report, StageLogits, StageScores
from training.recipe import Synthetic
from training.scoring.calibrate import anomalies
from training.scoring.score import Outputs
from training.wrapping.score_nodes import SCORE_NAMES

STAGE = "wrapped"
"""What the report calls the one stage that there is."""

_SYNTHETIC = {name: Synthetic(synthetic=name, size=1000) for name in ("gaussian", "blobs")}
_DRAWS, _SEED = 10, 1
_IMAGE_AXES = 4


@dataclass(frozen=True)
class Evaluated:
    """The in-distribution `test` set of classes `targets` `[N]`, the calibrations, and the temperature if known."""

    test: Examples
    targets: NDArray[np.int64]
    calibrations: Mapping[str, Calibration]
    temperature: float | None


def evaluate_wrapped(
    inside: Evaluated,
    ood: Mapping[str, Examples],
    score: Callable[[Examples], tuple[Outputs, NDArray[np.float32]]],
    *,
    alpha: float,
    default_score: str,
    title: str,
    origin: str,
    folder: Path,
) -> Report:
    """Measure on every set of `ood`, of images on synthetic ones too, and write the report's files into `folder`.

    `score` gives the graph's outputs and the logits `[N, K]` for a set; `origin` says what was wrapped.
    """
    test = inside.test
    configs = _SYNTHETIC if len(test.x.shape) == _IMAGE_AXES else {}
    synthetic = {
        name: synthesise(config, test, name=name, seed=_SEED) for name, config in configs.items() if name not in ood
    }
    outputs, logits = score(test)
    scored = {name: score(examples) for name, examples in (*ood.items(), *synthetic.items())}
    stage = StageScores(
        inside=anomalies(outputs, SCORE_NAMES),
        outside={name: anomalies(found, SCORE_NAMES) for name, (found, _) in scored.items()},
        calibrations=inside.calibrations,
        error=float(np.mean(outputs["prediction"] != inside.targets)),
        logits=None
        if inside.temperature is None
        else StageLogits(
            inside=logits,
            targets=inside.targets,
            outside={name: values for name, (_, values) in scored.items()},
            temperature=inside.temperature,
        ),
    )
    described = {name: f"{len(each):,} examples of {Path(each.source).name}" for name, each in ood.items()}
    described |= {name: f"{len(each):,} synthetic images ({name})" for name, each in synthetic.items()}
    report = evaluation.evaluate(
        {STAGE: stage},
        alpha=alpha,
        draws=_DRAWS,
        seed=_SEED,
        default_score=default_score,
        inside=Path(test.source).name,
        sets=described,
        provenance={"wrapped from": origin},
    )
    evaluation.write_report(report, {STAGE: stage}, folder, title=title, seed=_SEED, score=default_score)
    return report
