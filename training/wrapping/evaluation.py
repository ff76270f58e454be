"""The evaluation report of a wrapped classifier: that of a trained classifier, with one stage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle import Calibration
from training.data import Examples
from training.data.synthetic import synthesise
from training.evaluation import (
    TEXT_RECALL,
    DefaultScore,
    EvaluationInputs,
    Report,
    StageLogits,
    StageScores,
    assess,
    choose_default_score,
    evaluate_stages,
    write_report,
)
from training.recipe import Synthetic
from training.scoring.batch_scoring import Outputs
from training.scoring.calibration import anomalies

STAGE = "wrapped"
"""The name of the only stage in the report."""

_SYNTHETIC = {name: Synthetic(synthetic=name, size=1000) for name in ("gaussian", "blobs")}
_DRAWS, _SEED = 10, 1
_REMEDIES = ("Train the classifier with outliers of many kinds, or train one of a pretrained backbone's features.",)
_IMAGE_AXES = 4


@dataclass(frozen=True)
class EvaluationData:
    """The data for the evaluation of a wrapped classifier.

    Attributes:
        test: the in-distribution test set.
        targets: its classes `[N]`.
        ood: the out-of-distribution sets, by name.
        calibrations: the calibration of each score.
        temperature: the temperature of the probabilities; None to leave probabilities out of the report.
        validation: the names of those in `ood` that choose the default score, and are no test sets.
    """

    test: Examples
    targets: NDArray[np.int64]
    ood: Mapping[str, Examples]
    calibrations: Mapping[str, Calibration]
    temperature: float | None
    validation: tuple[str, ...] = ()


def evaluate_wrapped(
    data: EvaluationData,
    score: Callable[[Examples], tuple[Outputs, NDArray[np.float32]]],
    *,
    alpha: float,
    default_score: DefaultScore | None,
    title: str,
    origin: str,
    folder: Path,
    announce: Callable[[str], None],
) -> Report:
    """Evaluate on every set, for images on synthetic sets too, and write the report's files.

    Args:
        data: the test sets and calibrations.
        score: computes the graph's outputs and the logits `[N, K]` of a set.
        alpha: the false-flag rate.
        default_score: the score that the bundle decides by; None to choose it on the validation sets.
        title: the report's title.
        origin: the file that was wrapped, for the report's provenance.
        folder: where the files are written.
        announce: gets a line that says whether the detector is usable.
    """
    test, ood = data.test, data.ood
    is_image = len(test.x.shape) == _IMAGE_AXES
    configs = _SYNTHETIC if is_image else {}
    synthetic = {
        name: synthesise(config, test, name=name, seed=_SEED) for name, config in configs.items() if name not in ood
    }
    scores = tuple(data.calibrations)
    outputs, logits = score(test)
    scored = {name: score(examples) for name, examples in (*ood.items(), *synthetic.items())}
    stage = StageScores(
        in_dist=anomalies(outputs, scores),
        ood={name: anomalies(set_outputs, scores) for name, (set_outputs, _) in scored.items()},
        calibrations=data.calibrations,
        error=float(np.mean(outputs["prediction"] != data.targets)),
        logits=None
        if data.temperature is None
        else StageLogits(
            in_dist=logits,
            targets=data.targets,
            ood={name: set_logits for name, (_, set_logits) in scored.items()},
            temperature=data.temperature,
        ),
    )
    descriptions = {
        name: f"{len(examples):,} examples of {Path(examples.source).name}" for name, examples in ood.items()
    }
    descriptions |= {name: f"{len(examples):,} synthetic images ({name})" for name, examples in synthetic.items()}
    inputs = EvaluationInputs(
        stages={STAGE: stage},
        title=title,
        alpha=alpha,
        draws=_DRAWS,
        seed=_SEED,
        # Replaced by the chosen score below; no figure depends on it.
        default_score=scores[0],
        in_dist=Path(test.source).name,
        sets=descriptions,
        validation=data.validation,
        synthetic=tuple(synthetic),
        recalls=() if is_image else (TEXT_RECALL,),
        provenance={"wrapped from": origin},
    )
    report = evaluate_stages(inputs)
    name, reason = default_score or choose_default_score(report, STAGE, scores)
    report = report.model_copy(update={"default_score": name, "default_score_reason": reason})
    if report.test_sets:
        report = report.model_copy(update={"usability": assess(report, STAGE, _REMEDIES)})
        announce(str(report.usability))
    write_report(report, replace(inputs, default_score=name), folder)
    return report
