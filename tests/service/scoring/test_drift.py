"""The drift evidence: fair odds, few false alarms however long one looks, and drift that is noticed."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bundle import Calibration
from service.scoring.drift import DriftEvidence, combined_evidence

RUNS = 250
# With three standard errors of that many runs.
A_TENTH = 0.1 + 3 * (0.1 * 0.9 / RUNS) ** 0.5
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def continuous(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=n)


def saturated(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Many ties, as a confident softmax in float32 gives them at both ends."""
    return np.round(np.clip(rng.normal(size=n), -0.5, 1.5), 1)


class CalibrationAlone(list[int]):
    """Counts that grow as the calibration set says, whatever is seen: odds that never learn."""

    def __init__(self, drift: DriftEvidence) -> None:
        super().__init__(drift._gaps)
        self._drift = drift

    def __getitem__(self, level: Any) -> Any:
        return self._drift._gaps[level] * (1 + self._drift._seen / self._drift._all_gaps)

    def __setitem__(self, *_: Any) -> None:
        pass


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all of the money is at stake from the start, for tests of hundreds of inputs instead of millions."""
    monkeypatch.setattr("service.scoring.drift._HORIZON", 10)


def alarms(draw: Draw, evidence: float, *, learn: bool = True, n: int = 50, traffic: int = 600) -> float:
    """The share of runs, each with a calibration set and in-distribution traffic of its own, that reach `evidence`."""
    reached = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        drift = DriftEvidence(Calibration.from_scores(draw(rng, n)), seed=run)
        if not learn:
            drift._counts = CalibrationAlone(drift)
        for anomaly in draw(rng, traffic).tolist():
            drift.update(anomaly)
        reached += drift.log10 >= evidence
    return reached / RUNS


@settings(max_examples=40)
@given(st.integers(1, 60), st.lists(st.floats(0, 1, exclude_max=True), max_size=40), st.integers(0, 20))
def test_the_next_bet_is_fair_after_any_traffic(n: int, places: list[float], at_the_top: int) -> None:
    """The gaps between calibration scores are Polya's urn: each holds one ball and one more for each input in it."""
    drift = DriftEvidence(Calibration.from_scores(np.arange(n)))
    gaps = [int(place * (n + 1)) for place in places] + [n] * at_the_top
    for gap in gaps:
        drift.update(gap - 0.5)
    expected = 0.0
    for gap in range(n + 1):
        after = deepcopy(drift)
        after.update(gap - 0.5)
        expected += after.wealth * (1 + gaps.count(gap)) / (n + 1 + len(gaps))
    assert expected == pytest.approx(drift.wealth, rel=1e-9)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("draw", [continuous, saturated])
def test_traffic_like_the_calibration_data_raises_an_alarm_no_more_often_than_stated(draw: Draw) -> None:
    assert alarms(draw, 1.0) <= A_TENTH


@pytest.mark.usefixtures("at_once")
def test_the_bound_needs_odds_that_learn() -> None:
    """Otherwise the calibration set's own error is bet on: the test above can fail."""
    assert alarms(continuous, 1.0, learn=False, traffic=1500) > A_TENTH


@pytest.mark.usefixtures("at_once")
def test_several_gamblers_raise_an_alarm_no_more_often_than_one_may() -> None:
    runs = [evidences_of_several(run, gamblers=8) for run in range(RUNS)]
    assert sum(combined_evidence(run, 8) >= 1 for run in runs) / RUNS <= A_TENTH
    # The product of their largest wealths would: the assertion above can fail.
    assert sum(sum(run) >= 1 for run in runs) / RUNS > A_TENTH


def evidences_of_several(run: int, gamblers: int, n: int = 50, traffic: int = 100) -> list[float]:
    """Each has in-distribution traffic of its own, all the same calibration set."""
    rng = np.random.default_rng(run)
    calibration = Calibration.from_scores(continuous(rng, n))
    several = [DriftEvidence(calibration, seed=run) for _ in range(gamblers)]
    for drift in several:
        for anomaly in continuous(rng, traffic).tolist():
            drift.update(anomaly)
    return [drift.log10 for drift in several]


def test_anomalous_traffic_is_noticed_soon() -> None:
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
