"""The default score is chosen on validation sets, not on test sets, and the choice states its reason."""

import numpy as np
import pytest

from bundle import Calibration
from training.evaluation import EvaluationInputs, Report, StageScores, choose_default_score, evaluate_stages

SHIFTS = {
    # By set, how far each score separates it.
    "test": {"msp": 9.0, "energy": 0.1, "kl_uniform": 0.1},
    "first": {"msp": 0.5, "energy": 1.0, "kl_uniform": 3.0},
    "second": {"msp": 0.5, "energy": 2.0, "kl_uniform": 0.6},
}
SCORES = ("msp", "energy", "kl_uniform")


def report(shifts: dict[str, dict[str, float]], validation: tuple[str, ...] = ("first", "second")) -> Report:
    normal = np.random.default_rng(3).normal(size=500)
    stage = StageScores(
        in_dist=dict.fromkeys(SCORES, normal),
        ood={name: {score: normal[:100] + shift for score, shift in row.items()} for name, row in shifts.items()},
        calibrations={score: Calibration.from_scores(normal) for score in SCORES},
    )
    inputs = EvaluationInputs(
        stages={"oe": stage},
        title="Title",
        alpha=0.05,
        draws=2,
        seed=1,
        default_score="msp",
        in_dist="inside",
        sets={name: name for name in shifts},
        provenance={},
        validation=validation,
    )
    return evaluate_stages(inputs)


def mean_auroc(measured: Report, score: str) -> float:
    return float(np.mean([measured.find(name, "oe", score).auroc.mean for name in measured.validation]))


def test_the_score_with_the_highest_mean_auroc_on_the_validation_sets_is_chosen() -> None:
    measured = report(SHIFTS)
    choice = choose_default_score(measured, "oe", SCORES)
    assert choice.name == max(SCORES, key=lambda score: mean_auroc(measured, score))
    assert choice.name != "msp"
    for part in ("validation sets (first, second)", f"{choice.name} {mean_auroc(measured, choice.name):.2f}"):
        assert part in choice.reason


def test_test_sets_have_no_influence_on_the_choice() -> None:
    inverted = {**SHIFTS, "test": {"msp": -9.0, "energy": -9.0, "kl_uniform": -9.0}}
    assert choose_default_score(report(inverted), "oe", SCORES) == choose_default_score(report(SHIFTS), "oe", SCORES)


def test_only_the_scores_of_the_recipe_are_candidates() -> None:
    assert choose_default_score(report(SHIFTS), "oe", ("msp",)).name == "msp"


@pytest.mark.parametrize("scores", [("kl_uniform", "energy"), ("energy", "kl_uniform")])
def test_of_equal_scores_the_first_of_the_score_table_is_chosen(scores: tuple[str, ...]) -> None:
    equal = {name: dict.fromkeys(SCORES, 1.0) for name in SHIFTS}
    assert choose_default_score(report(equal), "oe", scores).name == "energy"


def test_without_validation_sets_the_first_score_of_the_recipe_remains_and_the_reason_says_so() -> None:
    name, reason = choose_default_score(report(SHIFTS, validation=()), "oe", ("kl_uniform", "msp"))
    assert name == "kl_uniform"
    assert "no validation sets" in reason


def test_a_report_without_a_reason_still_loads() -> None:
    measured = report(SHIFTS).model_copy(update={"default_score_reason": "because"})
    text = measured.to_json().replace('"default_score_reason": "because",', "")
    assert Report.from_json(text) == measured.model_copy(update={"default_score_reason": ""})
