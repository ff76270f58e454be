"""The drift evidence: fair odds, few false alarms over any length of traffic, and drift that is detected."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bundle import Calibration
from service.scoring.drift import LEVELS, SHARES, DriftEvidence, combined_evidence

RUNS = 250
# And three standard errors of that many runs.
A_TENTH = 0.1 + 3 * (0.1 * 0.9 / RUNS) ** 0.5
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
Odds = Callable[[Calibration, NDArray[np.float64], int], float]


def continuous(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=n)


def saturated(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Many ties, as a confident softmax in float32 gives them at both ends."""
    return np.round(np.clip(rng.normal(size=n), -0.5, 1.5), 1)


# Nearly all of the money is at stake from the start, so that hundreds of inputs suffice instead of millions.
HORIZON = 10


def learned_odds(calibration: Calibration, traffic: NDArray[np.float64], seed: int) -> float:
    """The evidence of `DriftEvidence`."""
    drift = DriftEvidence(calibration, seed, HORIZON)
    for anomaly in traffic.tolist():
        drift.update(anomaly)
    return drift.log10


def fixed_odds(calibration: Calibration, traffic: NDArray[np.float64], seed: int) -> float:
    """The evidence with odds from the calibration set alone, which do not learn from the traffic."""
    gaps = calibration.n + 1
    ordered = sorted(calibration.anomaly.tolist())
    levels = [(ordered[-k], gaps / k) for k in (int(level * gaps) for level in LEVELS) if k]
    accounts = [0.0] * len(SHARES)
    largest = 1.0
    for t, anomaly in enumerate(traffic.tolist(), start=1):
        gain = sum(odds for limit, odds in levels if anomaly > limit) / len(levels)
        released = HORIZON / ((HORIZON + t - 1) * (HORIZON + t))
        accounts = [
            (money + released) * (1 + share * (gain - 1)) for money, share in zip(accounts, SHARES, strict=True)
        ]
        largest = max(largest, HORIZON / (HORIZON + t) + sum(accounts) / len(accounts))
    return float(np.log10(largest))


def alarms(draw: Draw, evidence: float, *, odds: Odds = learned_odds, n: int = 50, traffic: int = 600) -> float:
    """The share of runs, each with its own calibration set and in-distribution traffic, that reach `evidence`."""
    reached = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        calibration = Calibration.from_scores(draw(rng, n))
        reached += odds(calibration, draw(rng, traffic), run) >= evidence
    return reached / RUNS


@settings(max_examples=40)
@given(st.integers(1, 60), st.lists(st.floats(0, 1, exclude_max=True), max_size=40), st.integers(0, 20))
def test_the_next_bet_is_fair_after_any_traffic(n: int, positions: list[float], at_the_top: int) -> None:
    """The gaps between calibration scores are Polya's urn: each has one ball, and one more for each input in it."""
    drift = DriftEvidence(Calibration.from_scores(np.arange(n)))
    gaps = [int(position * (n + 1)) for position in positions] + [n] * at_the_top
    for gap in gaps:
        drift.update(gap - 0.5)
    expected = 0.0
    for gap in range(n + 1):
        after = deepcopy(drift)
        after.update(gap - 0.5)
        expected += after.wealth * (1 + gaps.count(gap)) / (n + 1 + len(gaps))
    assert expected == pytest.approx(drift.wealth, rel=1e-9)


@pytest.mark.parametrize("draw", [continuous, saturated])
def test_traffic_like_the_calibration_data_raises_an_alarm_no_more_often_than_stated(draw: Draw) -> None:
    assert alarms(draw, 1.0) <= A_TENTH


def test_the_bound_needs_odds_that_learn() -> None:
    """Fixed odds bet on the calibration set's sampling error. This shows that the test above can fail."""
    assert alarms(continuous, 1.0, odds=fixed_odds, traffic=1500) > A_TENTH


def test_several_gamblers_raise_an_alarm_no_more_often_than_one_may() -> None:
    runs = [evidences_of_several(run, gamblers=8) for run in range(RUNS)]
    assert sum(combined_evidence(run, 8) >= 1 for run in runs) / RUNS <= A_TENTH
    # The product of their largest wealths does, which shows that the assertion above can fail.
    assert sum(sum(run) >= 1 for run in runs) / RUNS > A_TENTH


def evidences_of_several(run: int, gamblers: int, n: int = 50, traffic: int = 100) -> list[float]:
    """The evidence of gamblers that share a calibration set and see different in-distribution traffic."""
    rng = np.random.default_rng(run)
    calibration = Calibration.from_scores(continuous(rng, n))
    return [learned_odds(calibration, continuous(rng, traffic), run) for _ in range(gamblers)]


def test_anomalous_traffic_is_detected_soon() -> None:
    rng = np.random.default_rng(0)
    drift = DriftEvidence(Calibration.from_scores(continuous(rng, 1000)))
    for anomaly in continuous(rng, 2000).tolist():
        drift.update(anomaly)
    assert drift.log10 < 1
    for anomaly in (continuous(rng, 500) + 3 * (rng.random(500) < 0.1)).tolist():
        drift.update(anomaly)
    assert drift.log10 > 3


def test_an_alarm_stays_until_it_is_reset() -> None:
    rng = np.random.default_rng(0)
    drift = DriftEvidence(Calibration.from_scores(continuous(rng, 1000)))
    for _ in range(1000):
        drift.update(5.0)
    assert drift.log10 == pytest.approx(15, abs=1)
    for anomaly in continuous(rng, 1000).tolist():
        drift.update(anomaly)
    assert drift.log10 == pytest.approx(15, abs=1)
    drift.reset()
    assert (drift.log10, drift.wealth) == (0, 1)


def test_a_calibration_too_small_to_bet_on_gives_no_evidence() -> None:
    drift = DriftEvidence(Calibration.from_scores([0.0]))
    for _ in range(1000):
        drift.update(5.0)
    assert drift.log10 == pytest.approx(0, abs=1e-9)
