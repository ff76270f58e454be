"""Calibration errors, soft F1 and temperature equal their definitions, computed another way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from training.evaluation import (
    confidences,
    mad_calibration_error,
    posterior_rescaling,
    rms_calibration_error,
    soft_f1,
    tune_temperature,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@st.composite
def predictions(draw: st.DrawFn, *, distinct: bool = False) -> tuple[Floats, Flags]:
    """Confidences, often tied unless `distinct`, and whether each prediction is right."""
    levels = st.integers(0, 1000) if distinct else st.integers(0, 8)
    n = draw(st.integers(1, 60))
    confidence = draw(arrays(np.float64, n, elements=levels.map(float), unique=distinct))
    return confidence / (1000 if distinct else 8), draw(arrays(np.bool_, n))


def bin_by_bin(confidence: Floats, correct: Flags, size: int) -> list[tuple[float, float]]:
    """Each bin's weight and gap by the definition, for distinct confidences."""
    pairs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True))
    n_bins = max(len(pairs) // size, 1)
    bins = [pairs[i * size : (i + 1) * size if i + 1 < n_bins else None] for i in range(n_bins)]
    return [
        (len(b) / len(pairs), abs(math.fsum(c for c, _ in b) / len(b) - sum(right for _, right in b) / len(b)))
        for b in bins
    ]


@given(made=predictions(distinct=True), size=st.integers(1, 20))
def test_calibration_errors_equal_their_definition_bin_by_bin(made: tuple[Floats, Flags], size: int) -> None:
    gaps = bin_by_bin(*made, size)
    rms, mad = math.sqrt(sum(w * gap**2 for w, gap in gaps)), sum(w * gap for w, gap in gaps)
    assert rms_calibration_error(*made, size) == pytest.approx(rms, abs=1e-9)
    assert mad_calibration_error(*made, size) == pytest.approx(mad, abs=1e-9)


def test_five_predictions_in_two_bins_computed_by_hand() -> None:
    # Bins in order of confidence: (0.2, 0.4 | one of two right), (0.6, 0.8, 1.0 | all three right).
    confidence, correct = np.array([1.0, 0.2, 0.8, 0.4, 0.6]), np.array([True, True, True, False, True])
    assert mad_calibration_error(confidence, correct, 2) == pytest.approx(0.4 * 0.2 + 0.6 * 0.2)
    assert rms_calibration_error(confidence, correct, 2) == pytest.approx(0.2)
    assert soft_f1(confidence, correct) == pytest.approx(2 * 0.6 / (2 * 0.6 + 1.4 + 0.4))


def test_the_bin_of_the_most_confident_predictions_counts() -> None:
    # The less confident half is correct and the other wrong: the authors' loop, which omits the last bin, gives 0.
    confidence = np.concatenate((np.linspace(0.999, 0.9999, 100), np.full(100, 1.0)))
    correct = np.repeat([True, False], 100)
    assert mad_calibration_error(confidence, correct) == pytest.approx(0.5, abs=1e-3)


@given(made=predictions(), size=st.integers(1, 20), seed=st.integers(0, 100))
def test_measures_do_not_depend_on_the_order_of_inputs_even_with_tied_confidences(
    made: tuple[Floats, Flags], size: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(made[0]))
    shuffled = made[0][order], made[1][order]
    assert rms_calibration_error(*shuffled, size) == pytest.approx(rms_calibration_error(*made, size), abs=1e-12)
    assert mad_calibration_error(*shuffled, size) == pytest.approx(mad_calibration_error(*made, size), abs=1e-12)
    assert soft_f1(*shuffled) == pytest.approx(soft_f1(*made), abs=1e-12)


@given(made=predictions(), size=st.integers(1, 20))
def test_measures_stay_in_bounds_and_rms_is_at_least_mad(made: tuple[Floats, Flags], size: int) -> None:
    mad, rms = mad_calibration_error(*made, size), rms_calibration_error(*made, size)
    assert 0 <= mad <= rms + 1e-12
    assert rms <= 1 + 1e-12
    assert 0 <= soft_f1(*made) <= 1


@given(n=st.integers(1, 40), data=st.data())
def test_soft_f1_of_certainties_is_f1(n: int, data: st.DataObject) -> None:
    confident, correct = data.draw(arrays(np.bool_, n)), data.draw(arrays(np.bool_, n))
    expected = f1_score(~correct, ~confident, zero_division=0.0)
    assert soft_f1(confident.astype(np.float64), correct) == pytest.approx(expected)


def test_calibrated_probabilities_have_almost_no_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.1, 1, 200_000)
    correct = generator.uniform(size=200_000) < confidence
    # The remaining error is the binomial noise of an accuracy over 1000 predictions, at most sqrt(0.25 / 1000) = 1.6%.
    assert rms_calibration_error(confidence, correct, 1000) < 0.016
    assert rms_calibration_error(confidence**4, correct, 1000) > 0.2


def test_no_predictions_have_no_calibration_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        rms_calibration_error(np.empty(0), np.empty(0))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_recovered(temperature: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 3, (20_000, 5))
    # argmax of logits / T + Gumbel noise is a draw from softmax(logits / T).
    targets = (logits / temperature + generator.gumbel(size=logits.shape)).argmax(axis=1)
    assert tune_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


def test_logits_divided_by_their_temperature_have_a_temperature_of_1() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 6, (2000, 4))
    targets = (logits / 3 + generator.gumbel(size=logits.shape)).argmax(axis=1)
    assert tune_temperature(logits / tune_temperature(logits, targets), targets) == pytest.approx(1, abs=1e-3)


def test_logits_that_are_always_correct_get_the_lowest_temperature() -> None:
    assert tune_temperature(np.eye(4), np.arange(4)) == pytest.approx(0.05, rel=1e-3)


def test_logits_that_no_temperature_improves_get_a_temperature_of_1() -> None:
    # Every temperature of the bracket gives every target a probability of 1, rounded.
    assert tune_temperature(np.eye(4) * 1000, np.arange(4)) == 1


def test_logits_that_are_always_wrong_get_the_highest_temperature() -> None:
    assert tune_temperature(-np.eye(4), np.arange(4)) == pytest.approx(20, rel=1e-3)


@given(logits=arrays(np.float64, (7, 4), elements=st.floats(-500, 500)), temperature=st.floats(0.05, 20))
def test_confidences_and_their_rescaling_stay_in_range(logits: Floats, temperature: float) -> None:
    confidence = confidences(logits, temperature)
    assert np.all((confidence >= 0.25 - 1e-12) & (confidence <= 1))
    rescaled = posterior_rescaling(confidence, 4)
    assert np.all((rescaled >= 0) & (rescaled <= 1))


def test_rescaling_sends_a_uniform_softmax_to_0_and_certainty_to_1() -> None:
    assert posterior_rescaling([0.1, 0.55, 1.0], 10) == pytest.approx([0, 0.5, 1])
