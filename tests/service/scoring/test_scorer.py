"""Rows and calibration to results."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import SCORES, Calibration
from service.errors import InputError
from service.inference.outcomes import Expired, Failure, Outcome, Row
from service.inputs.explanation import PARTS
from service.scoring.options import Options
from service.scoring.scored_input import Prediction, Result, ScoredInput
from service.scoring.scorer import Scorer

CALIBRATION = Calibration.from_scores(np.linspace(0, 1, 99))
SCORER = Scorer({"msp": CALIBRATION}, [], 0.05)


def rows(**outputs: list[float]) -> list[Row]:
    arrays = {name: np.array(column, np.float32) for name, column in outputs.items()}
    return [Row(arrays, index, 0.0, 0.0) for index in range(len(next(iter(arrays.values()))))]


def options(*scores: str, alpha: float | None = None, explain: bool = False, **thresholds: float) -> Options:
    return Options(scores or ("msp",), alpha, thresholds, 1000, explain)


def scored(result: Result) -> ScoredInput:
    assert isinstance(result, ScoredInput), result
    return result


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=8),
    st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True),
)
def test_every_value_gives_valid_json_and_the_flag_of_its_p_value(values: list[float], alpha: float) -> None:
    for value, result in zip(values, SCORER.score(rows(msp=values), options(alpha=alpha)), strict=True):
        if not math.isfinite(value):
            assert isinstance(result, InputError)
            assert result.type == "non-finite-score"
            continue
        json.dumps(asdict(scored(result)), allow_nan=False)
        entry = scored(result).scores["msp"]
        assert entry.anomaly == SCORES["msp"].anomaly(np.float32(value))
        assert entry.flagged is (entry.p_value <= alpha)
        assert scored(result).flagged is entry.flagged


@pytest.mark.parametrize("rank", [1, 5, 50, 99])
def test_an_anomaly_that_equals_the_threshold_of_alpha_is_not_flagged(rank: int) -> None:
    # Values that are exact in float32, as those of saturated softmaxes are.
    calibration = Calibration.from_scores(np.arange(99) / 128)
    scorer = Scorer({"msp": calibration}, [], 0.05)
    alpha = rank / 100
    threshold = calibration.threshold(alpha)
    at, above = scorer.score(rows(msp=[1 - threshold, 1 - threshold - 1 / 128]), options(alpha=alpha))
    entry = scored(at).scores["msp"]
    assert (entry.anomaly, entry.threshold) == (threshold, threshold)
    assert entry.flagged is False
    assert entry.p_value > alpha
    assert scored(above).flagged is True


def test_an_anomaly_that_equals_the_threshold_of_the_request_is_not_flagged() -> None:
    at, above = SCORER.score(rows(msp=[0.25, 0.125]), options(msp=0.75))
    assert (scored(at).scores["msp"].anomaly, scored(at).scores["msp"].threshold) == (0.75, 0.75)
    assert scored(at).flagged is False
    assert scored(above).flagged is True


def test_a_prediction_has_its_label_and_an_invalid_one_is_an_error() -> None:
    scorer = Scorer({"msp": CALIBRATION}, ["cat", "dog"], 0.05)
    outputs = rows(msp=[0.5] * 4, prediction=[1, 7, -1, 0], probability=[0.9, 0.9, 0.9, math.nan])
    first, *others = scorer.score(outputs, options())
    assert scored(first).prediction == Prediction("dog", 1, pytest.approx(0.9))
    assert [other.type for other in others if isinstance(other, InputError)] == ["invalid-prediction"] * 3


def test_a_model_without_labels_predicts_nothing() -> None:
    (result,) = Scorer({"bpp": CALIBRATION}, [], 0.05).score(rows(bpp=[3.0]), options("bpp"))
    assert scored(result).prediction is None
    assert scored(result).flagged is True


def test_a_threshold_applies_to_its_score_and_alpha_to_the_others() -> None:
    scorer = Scorer({"msp": CALIBRATION, "entropy": CALIBRATION}, [], 0.05)
    (result,) = scorer.score(rows(msp=[0.4], entropy=[0.6]), options("msp", "entropy", msp=0.6))
    scores = scored(result).scores
    assert scores["msp"].flagged is False
    assert scores["msp"].threshold == 0.6
    assert scores["entropy"].threshold == CALIBRATION.threshold(0.05)


def test_the_first_requested_score_decides_the_flag() -> None:
    scorer = Scorer({"msp": CALIBRATION, "entropy": CALIBRATION}, [], 0.05)
    outputs = rows(msp=[1.0], entropy=[2.0])
    for names in (("msp", "entropy"), ("entropy", "msp")):
        (result,) = scorer.score(outputs, options(*names))
        assert list(scored(result).scores) == list(names)
        first = scored(result).scores[names[0]]
        assert (scored(result).flagged, scored(result).p_value) == (first.flagged, first.p_value)
        assert first.flagged is (names[0] == "entropy")


def test_results_come_in_the_order_of_the_inputs_with_the_error_of_each_that_has_no_scores() -> None:
    bad = InputError("undecodable-image", "It is no image.")
    first, second = rows(msp=[0.9, 0.1])
    item = np.zeros(1)
    prepared = [bad, item, item, bad, item, item]
    outcomes: Sequence[Outcome] = [first, Failure("out of memory"), Expired(), second]
    results = SCORER.results(prepared, outcomes, options())
    assert [result.type if isinstance(result, InputError) else "scored" for result in results] == [
        *("undecodable-image", "scored", "inference-failed"),
        *("undecodable-image", "deadline-passed", "scored"),
    ]
    assert [scored(results[index]).scores["msp"].value for index in (1, 5)] == pytest.approx([0.9, 0.1])
    assert "out of memory" not in str(results[2])


def test_results_are_explained_on_request_from_the_parts_of_each_input() -> None:
    scorer = Scorer(
        {"msp": CALIBRATION}, [], 0.05, lambda item, bits, _: {"item": item.tolist(), "bits": bits.tolist()}
    )
    outputs = {"msp": np.array([0.5, math.nan, 0.5], np.float32), PARTS: np.array([[1.0], [2.0], [3.0]])}
    outcomes = [Row(outputs, index, 0.0, 0.0) for index in range(3)]
    items = [np.array([index]) for index in range(3)]
    first, failed, last = scorer.results(items, outcomes, options(explain=True))
    assert scored(first).explanation == {"item": [0], "bits": [1.0]}
    assert scored(last).explanation == {"item": [2], "bits": [3.0]}
    assert isinstance(failed, InputError)
    assert scored(scorer.results(items[:1], outcomes[:1], options())[0]).explanation is None


def test_an_alpha_that_can_flag_nothing_is_warned_of_unless_a_threshold_replaces_it() -> None:
    scorer = Scorer({"msp": CALIBRATION}, [], 0.001)
    assert scorer.thresholds == {"msp": None}
    assert scorer.warnings(options()) == [
        "msp: nothing can be flagged at alpha 0.001: with 99 calibration scores the smallest p-value is 0.01"
    ]
    assert scorer.warnings(options(alpha=0.01)) == []
    assert scorer.warnings(options(msp=0.1)) == []
