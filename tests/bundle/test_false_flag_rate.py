import numpy as np
import pytest
from scipy.stats import beta

from bundle import Calibration, CalibrationError, false_flag_rate
from bundle.false_flag_rate import beta_cdf, flagging_rank

SIZES = [1, 2, 5, 20, 70, 99, 100, 500, 999, 2500, 50_000]
ALPHAS = [1e-5, 0.001, 0.01, 0.05, 0.1, 0.29, 0.5, 0.9, 0.999]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_interval_and_the_chance_to_exceed_alpha_are_those_of_the_beta_distribution(n: int, alpha: float) -> None:
    rate = false_flag_rate(n, alpha)
    k = flagging_rank(n, alpha)
    if k == 0:
        assert (rate.lower, rate.upper, rate.exceeds_alpha) == (0, 0, 0)
        return
    reference = beta(k, n + 1 - k)
    assert rate.lower == pytest.approx(reference.ppf(0.025), rel=1e-8)
    assert rate.upper == pytest.approx(reference.ppf(0.975), rel=1e-8)
    assert rate.exceeds_alpha == pytest.approx(reference.sf(alpha), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("a", [0.5, 1, 3, 40, 1000])
@pytest.mark.parametrize("b", [0.5, 1, 3, 40, 1000])
def test_the_distribution_function_of_beta_equals_scipys(a: float, b: float) -> None:
    for x in (-1, 0, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6, 1, 2):
        assert beta_cdf(x, a, b) == pytest.approx(beta.cdf(x, a, b), rel=1e-9, abs=1e-300)


# Published values: n, the interval in percent, and the probability to exceed an alpha of 0.01.
@pytest.mark.parametrize(
    ("n", "lower", "upper", "exceeds"),
    [
        (100, 0.03, 3.62, 0.37),
        (500, 0.33, 2.04, 0.44),
        (700, 0.40, 1.86, 0.45),
        (1000, 0.48, 1.70, 0.46),
        (1500, 0.56, 1.56, 0.47),
        (2500, 0.65, 1.43, 0.47),
    ],
)
def test_the_rates_of_usual_calibration_sizes(n: int, lower: float, upper: float, exceeds: float) -> None:
    rate = false_flag_rate(n, 0.01)
    assert (round(100 * rate.lower, 2), round(100 * rate.upper, 2), round(rate.exceeds_alpha, 2)) == (
        lower,
        upper,
        exceeds,
    )


def test_simulated_calibration_sets_have_the_stated_rates() -> None:
    n, alpha, generator = 200, 0.05, np.random.default_rng(0)
    rate = false_flag_rate(n, alpha)
    # Of uniform anomalies the share above a threshold is one minus the threshold.
    realised = np.array([1 - Calibration.from_scores(generator.random(n)).threshold(alpha) for _ in range(4000)])
    assert realised.mean() == pytest.approx(10 / 201, abs=0.001)
    assert np.mean((realised < rate.lower) | (realised > rate.upper)) == pytest.approx(0.05, abs=0.015)
    assert np.mean(realised > alpha) == pytest.approx(rate.exceeds_alpha, abs=0.03)


def test_ties_make_the_rate_smaller_only() -> None:
    n, alpha, values, generator = 200, 0.05, 25, np.random.default_rng(1)
    rate = false_flag_rate(n, alpha)
    thresholds = [Calibration.from_scores(generator.integers(values, size=n)).threshold(alpha) for _ in range(2000)]
    # Of uniform integers below `values`, those above the threshold are flagged.
    realised = np.array([(values - 1 - threshold) / values for threshold in thresholds])
    assert realised.mean() < alpha
    assert np.mean(realised > rate.upper) <= 0.025
    assert np.mean(realised > alpha) <= rate.exceeds_alpha


def test_the_sentence_states_the_mean_the_interval_and_the_smallest_usable_alpha() -> None:
    assert str(false_flag_rate(500, 0.01)) == (
        "false flags at alpha 0.01: at most 1% on average over calibration sets; with 500 calibration inputs "
        "0.33% to 2.04% for 95% of the sets, above 1% for 44% of them; smallest usable alpha 0.002"
    )


def test_the_sentence_for_too_few_inputs_names_an_alpha_that_is_usable() -> None:
    sentence = str(false_flag_rate(70, 0.01))
    assert sentence == "alpha 0.01 flags nothing with 70 calibration inputs; smallest usable alpha 0.0141"
    assert flagging_rank(70, 0.0141) == 1


def test_a_calibration_gives_the_rate_for_its_size() -> None:
    assert Calibration.from_scores(np.arange(500.0)).false_flag_rate(0.01) == false_flag_rate(500, 0.01)


@pytest.mark.parametrize(("n", "alpha"), [(0, 0.01), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_impossible_sizes_and_alphas_are_refused(n: int, alpha: float) -> None:
    with pytest.raises(CalibrationError):
        false_flag_rate(n, alpha)
