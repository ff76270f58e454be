"""Probabilities of stages: the same mixture for all stages, and a temperature that repairs overconfidence."""

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation import StageLogits, measure_probabilities, tune_temperature
from training.evaluation.stage_probabilities import ProbabilityResult, stage_predictions

SIZES = {"noise": 150, "places": 150, "tuning": 50}
TEST_SETS = ("noise", "places")


def overconfident(scale: float = 4.0) -> StageLogits:
    """A stage whose logits are `scale` times those that its labels are drawn from; overconfident on outliers too."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (1000, 5))
    targets = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    ood = {name: (generator.normal(0, 2, (n, 5)) * scale).astype(np.float32) for name, n in SIZES.items()}
    temperature = tune_temperature(logits[:500] * scale, targets[:500])
    return StageLogits(logits[500:] * scale, targets[500:], ood, temperature)


def result(results: list[ProbabilityResult], inputs: str, tuned: bool, stage: str = "oe") -> ProbabilityResult:
    return next(r for r in results if (r.inputs, r.with_temperature, r.stage) == (inputs, tuned, stage))


def test_temperature_repairs_overconfidence_in_distribution() -> None:
    results = measure_probabilities({"oe": overconfident()}, TEST_SETS, seed=1)
    before, after = (result(results, "in-distribution", tuned) for tuned in (False, True))
    assert before.temperature == 1
    assert after.temperature == pytest.approx(4, rel=0.15)
    assert after.rms < before.rms / 3
    assert after.mad <= after.rms


def test_every_prediction_on_an_out_of_distribution_input_is_wrong() -> None:
    logits = overconfident()
    mixed = [p for p in stage_predictions(logits, TEST_SETS, seed=1) if p.inputs == "mixture"]
    for predictions in mixed:
        assert len(predictions.correct) == 600
        assert not predictions.correct[500:].any()
        assert predictions.correct[:500].mean() == (logits.in_dist.argmax(axis=1) == logits.targets).mean()


def test_a_stage_that_is_unsure_of_outliers_is_better_calibrated_on_the_mixture() -> None:
    stage = overconfident(1.0)
    certain = replace(stage, ood={name: 20 * logits for name, logits in stage.ood.items()})
    doubtful = replace(stage, ood={name: 0 * logits for name, logits in stage.ood.items()})
    results = measure_probabilities({"baseline": certain, "oe": doubtful}, TEST_SETS, seed=1)
    baseline, oe = (result(results, "mixture", True, stage) for stage in ("baseline", "oe"))
    assert oe.rms < baseline.rms
    assert oe.soft_f1 > baseline.soft_f1
    in_distribution = [result(results, "in-distribution", True, stage).rms for stage in ("baseline", "oe")]
    assert in_distribution[0] == in_distribution[1]


def test_validation_sets_are_not_part_of_the_mixture() -> None:
    logits = overconfident()
    logits.ood["tuning"][:] = np.nan
    results = measure_probabilities({"oe": logits}, TEST_SETS, seed=1)
    assert all(np.isfinite(row.rms) for row in results)
