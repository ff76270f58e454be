"""Stages' probabilities are measured on the same mixture for all, and temperature helps where it should."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import StageLogits, measure_probabilities, tune_temperature
from training.evaluation.detection import draw_mixture
from training.evaluation.stage_probabilities import ProbabilityResult, stage_predictions

SIZES = {"noise": 150, "places": 150, "tuning": 50}
TEST_SETS = ("noise", "places")


def overconfident(scale: float = 4.0) -> StageLogits:
    """A stage whose logits are `scale` times those that its labels are drawn from; certain of unknown inputs too."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (1000, 5))
    targets = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    outside = {name: (generator.normal(0, 2, (n, 5)) * scale).astype(np.float32) for name, n in SIZES.items()}
    temperature = tune_temperature(logits[:500] * scale, targets[:500])
    return StageLogits(logits[500:] * scale, targets[500:], outside, temperature)


def found(results: list[ProbabilityResult], inputs: str, tuned: bool, stage: str = "oe") -> ProbabilityResult:
    return next(r for r in results if (r.inputs, r.with_temperature, r.stage) == (inputs, tuned, stage))


def test_temperature_repairs_overconfidence_in_distribution() -> None:
    results = measure_probabilities({"oe": overconfident()}, TEST_SETS, seed=1)
    before, after = (found(results, "in-distribution", tuned) for tuned in (False, True))
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


def test_a_stage_that_knows_nothing_of_unknown_inputs_is_better_calibrated_on_the_mixture() -> None:
    stage = overconfident(1.0)
    certain = replace(stage, ood={name: 20 * logits for name, logits in stage.ood.items()})
    doubtful = replace(stage, ood={name: 0 * logits for name, logits in stage.ood.items()})
    results = measure_probabilities({"baseline": certain, "oe": doubtful}, TEST_SETS, seed=1)
    baseline, oe = (found(results, "mixture", True, stage) for stage in ("baseline", "oe"))
    assert oe.rms < baseline.rms
    assert oe.soft_f1 > baseline.soft_f1
    in_distribution = [found(results, "in-distribution", True, stage).rms for stage in ("baseline", "oe")]
    assert in_distribution[0] == in_distribution[1]


def test_sets_that_choices_are_made_by_are_no_part_of_the_mixture() -> None:
    logits = overconfident()
    logits.ood["tuning"][:] = np.nan
    results = measure_probabilities({"oe": logits}, TEST_SETS, seed=1)
    assert all(np.isfinite(row.rms) for row in results)


def test_the_same_seed_draws_the_same_mixture_and_another_seed_another() -> None:
    first, again, other = (draw_mixture(500, SIZES, seed=seed) for seed in (1, 1, 2))
    assert first.ood["noise"].tolist() == again.ood["noise"].tolist()
    assert first.ood["noise"].tolist() != other.ood["noise"].tolist()


def test_what_a_small_set_cannot_give_the_larger_ones_do() -> None:
    taken = {name: len(rows) for name, rows in draw_mixture(500, {"a": 10, "b": 400, "c": 60}, seed=0).ood.items()}
    assert taken == {"a": 10, "b": 45, "c": 45}


@given(in_dist=st.integers(5, 300), sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
def test_a_mixture_has_one_in_six_and_no_row_twice(in_dist: int, sizes: list[int]) -> None:
    mixture = draw_mixture(in_dist, {f"set {i}": n for i, n in enumerate(sizes)}, seed=0)
    taken = sum(len(rows) for rows in mixture.ood.values())
    assert taken == min(in_dist // 5, sum(sizes))
    assert len(mixture.in_dist) == 5 * taken
    for rows, n in [(mixture.in_dist, in_dist), *zip(mixture.ood.values(), sizes, strict=True)]:
        assert len(set(rows.tolist())) == len(rows)
        assert all(0 <= row < n for row in rows)


def test_no_mixture_of_too_few() -> None:
    with pytest.raises(ValueError, match="5:1"):
        draw_mixture(4, {"noise": 10}, seed=0)
