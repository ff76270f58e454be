"""Rows and calibration to results."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import SCORES, Calibration
from service.errors import InputError
from service.inference.outcomes import Row
from service.scoring.options import Options
from service.scoring.scored_input import Prediction, ScoredInput
from service.scoring.scorer import Scorer

CALIBRATION = Calibration.from_scores(np.linspace(0, 1, 99))


def rows(**outputs: list[float]) -> list[Row]:
    arrays = {name: np.array(column, np.float32) for name, column in outputs.items()}
    return [Row(arrays, index, 0.0, 0.0) for index in range(len(next(iter(arrays.values()))))]


def options(*scores: str, alpha: float | None = None, **thresholds: float) -> Options:
    return Options(scores or ("msp",), alpha, thresholds, 1000)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=8),
    st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True),
)
def test_every_value_gives_valid_json_and_the_flag_of_its_p_value(values: list[float], alpha: float) -> None:
    scorer = Scorer({"msp": CALIBRATION}, [], 0.05)
    for value, result in zip(values, scorer.score(rows(msp=values), options(alpha=alpha)), strict=True):
        if not math.isfinite(value):
            assert isinstance(result, InputError)
            assert result.type == "non-finite-score"
            continue
        assert isinstance(result, ScoredInput)
        json.dumps(asdict(result), allow_nan=False)
        entry = result.scores["msp"]
        assert entry.anomaly == SCORES["msp"].anomaly(np.float32(value))
        assert entry.flagged is (entry.p_value <= alpha)
        assert result.flagged is entry.flagged


def test_a_prediction_is_named_and_a_nonsensical_one_is_an_error() -> None:
    scorer = Scorer({"msp": CALIBRATION}, ["cat", "dog"], 0.05)
    given_rows = rows(msp=[0.5] * 4, prediction=[1, 7, -1, 0], probability=[0.9, 0.9, 0.9, math.nan])
    first, *others = scorer.score(given_rows, options())
    assert isinstance(first, ScoredInput)
    assert first.prediction == Prediction("dog", 1, pytest.approx(0.9))
    assert [other.type for other in others if isinstance(other, InputError)] == ["invalid-prediction"] * 3


def test_a_model_without_labels_predicts_nothing() -> None:
    (result,) = Scorer({"bpp": CALIBRATION}, [], 0.05).score(rows(bpp=[3.0]), options("bpp"))
    assert isinstance(result, ScoredInput)
    assert result.prediction is None
    assert result.flagged is True


def test_a_threshold_holds_for_its_score_and_alpha_for_the_others() -> None:
    scorer = Scorer({"msp": CALIBRATION, "entropy": CALIBRATION}, [], 0.05)
    (result,) = scorer.score(rows(msp=[0.4], entropy=[0.6]), options("msp", "entropy", msp=0.6))
    assert isinstance(result, ScoredInput)
    assert result.scores["msp"].flagged is False
    assert result.scores["msp"].threshold == 0.6
    assert result.scores["entropy"].threshold == CALIBRATION.threshold(0.05)


def test_an_alpha_that_can_flag_nothing_is_warned_of_unless_a_threshold_replaces_it() -> None:
    scorer = Scorer({"msp": CALIBRATION}, [], 0.001)
    assert scorer.thresholds == {"msp": None}
    assert scorer.warnings(options()) == [
        "msp: nothing can be flagged at alpha 0.001: with 99 calibration scores the smallest p-value is 0.01"
    ]
    assert scorer.warnings(options(alpha=0.01)) == []
    assert scorer.warnings(options(msp=0.1)) == []
