import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import (
    Calibration,
    CalibrationError,
    CalibrationInvalid,
    load_calibrations,
    save_calibrations,
)

ALPHAS = st.floats(0, 1, exclude_min=True, exclude_max=True)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Few distinct values, so that most draws have ties.
TIED = st.integers(-3, 3).map(float)
SCORES = st.lists(FINITE | TIED, min_size=1, max_size=60)


def test_a_p_value_counts_the_calibration_scores_at_least_as_anomalous() -> None:
    calibration = Calibration.from_scores([4.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(calibration.p_value([0.0, 2.5, 9.0]), [5 / 5, 3 / 5, 1 / 5])


def test_tied_calibration_scores_all_count_against_flagging() -> None:
    calibration = Calibration.from_scores([1.0, 2.0, 2.0, 2.0])
    np.testing.assert_array_equal(calibration.p_value([2.0, math.nextafter(2.0, 3.0)]), [4 / 5, 1 / 5])
    np.testing.assert_array_equal(calibration.flagged([2.0, 2.1], alpha=0.5), [False, True])


def test_the_threshold_is_the_calibration_score_of_rank_alpha() -> None:
    calibration = Calibration.from_scores(np.arange(1.0, 100.0))
    assert calibration.threshold(0.05) == 95.0
    assert calibration.threshold(0.5) == 50.0


@pytest.mark.parametrize("rank", range(1, 100))
def test_a_threshold_at_an_exact_rank_is_not_lost_to_rounding(rank: int) -> None:
    calibration = Calibration.from_scores(np.arange(1.0, 100.0))
    assert calibration.threshold(rank / 100) == 100 - rank


@pytest.mark.parametrize("n", [1, 2, 5, 12, 59])
def test_just_below_an_exact_rank_the_threshold_is_the_next_larger_calibration_score(n: int) -> None:
    calibration = Calibration.from_scores(np.arange(1.0, n + 1))
    # For n = 5 and rank 5, floor(alpha * (n + 1)) is one more than the number of p-values up to alpha.
    for rank in range(1, n + 1):
        alpha = math.nextafter(rank / (n + 1), 0)
        assert calibration.threshold(alpha) == (n + 2 - rank if rank > 1 else math.inf)


@given(scores=SCORES, alpha=ALPHAS, anomaly=FINITE | TIED | st.sampled_from([math.inf, -math.inf]))
def test_exceeding_the_threshold_is_having_a_p_value_of_at_most_alpha(
    scores: list[float], alpha: float, anomaly: float
) -> None:
    calibration = Calibration.from_scores(scores)
    if alpha < calibration.smallest_alpha:
        assert not calibration.flagged(anomaly, alpha)
    assert bool(anomaly > calibration.threshold(alpha)) == bool(calibration.p_value(anomaly) <= alpha)


@given(scores=SCORES, anomaly=FINITE | TIED | st.sampled_from([math.inf, -math.inf, math.nan]))
def test_one_number_alone_has_the_p_value_that_it_has_in_an_array(scores: list[float], anomaly: float) -> None:
    calibration = Calibration.from_scores(scores)
    np.testing.assert_array_equal(calibration.p_value_of(anomaly), calibration.p_value([anomaly])[0])


@given(scores=SCORES, data=st.data())
def test_the_equivalence_holds_at_and_next_to_every_calibration_score_and_rank(
    scores: list[float], data: st.DataObject
) -> None:
    calibration = Calibration.from_scores(scores)
    score = data.draw(st.sampled_from(scores))
    rank = data.draw(st.integers(1, calibration.n)) / (calibration.n + 1)
    for alpha in (math.nextafter(rank, 0), rank, math.nextafter(rank, 1)):
        for anomaly in (math.nextafter(score, -math.inf), score, math.nextafter(score, math.inf)):
            flagged = calibration.flagged(anomaly, alpha)
            assert bool(flagged) == bool(calibration.p_value(anomaly) <= alpha)


@given(scores=st.lists(FINITE | TIED, min_size=2, max_size=40), alpha=ALPHAS)
def test_of_exchangeable_scores_at_most_a_share_alpha_is_flagged(scores: list[float], alpha: float) -> None:
    # Exchangeability means that each of the n + 1 scores is equally likely to be the new one, so the false-flag rate
    # is exactly the share of scores that are flagged when calibrated on the other n.
    flagged = sum(
        bool(Calibration.from_scores(scores[:i] + scores[i + 1 :]).flagged(score, alpha))
        for i, score in enumerate(scores)
    )
    assert flagged / len(scores) <= alpha


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_false_flag_rate_on_random_draws_is_the_promised_one(alpha: float) -> None:
    rng = np.random.default_rng(7)
    trials, n = 6000, 199
    draws = rng.gumbel(size=(trials, n + 1))
    flagged = sum(bool(Calibration.from_scores(draw[:-1]).flagged(draw[-1], alpha)) for draw in draws)
    # Without ties the rate is exactly alpha here (alpha * 200 is whole); four standard errors of the binomial.
    tolerance = 4 * math.sqrt(alpha * (1 - alpha) / trials)
    assert abs(flagged / trials - alpha) < tolerance


def test_ties_only_lower_the_false_flag_rate() -> None:
    rng = np.random.default_rng(8)
    draws = rng.integers(0, 10, size=(3000, 100)).astype(np.float64)
    flagged = sum(bool(Calibration.from_scores(draw[:-1]).flagged(draw[-1], 0.05)) for draw in draws)
    assert flagged / len(draws) < 0.05


def test_nothing_is_flagged_when_alpha_is_too_small_for_n() -> None:
    calibration = Calibration.from_scores(np.arange(99.0))
    assert calibration.smallest_alpha == 0.01
    assert calibration.threshold(0.00999) == math.inf
    assert not calibration.flagged([1e300, math.inf], 0.00999).any()
    assert calibration.flagged(1e300, 0.01)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_an_alpha_outside_zero_to_one_is_refused(alpha: float) -> None:
    with pytest.raises(CalibrationError, match="alpha"):
        Calibration.from_scores([1.0]).threshold(alpha)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([], "at least one"), ([1.0, math.nan], "1 of 2"), ([math.inf], "infinite"), ([[1.0, 2.0]], "shape")],
)
def test_scores_that_cannot_calibrate_are_refused(scores: list[float], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_scores(scores)


@pytest.mark.parametrize("scores", [[2.0, 1.0], [1.0, 3.0, 2.0]])
def test_unsorted_scores_are_refused_by_the_constructor(scores: list[float]) -> None:
    with pytest.raises(CalibrationError, match="order"):
        Calibration(np.array(scores))


def test_calibration_scores_do_not_change_with_the_caller_s_array() -> None:
    scores = np.array([1.0, 2.0])
    calibration = Calibration(scores)
    scores[0] = 9.0
    np.testing.assert_array_equal(calibration.anomaly, [1.0, 2.0])
    assert not calibration.anomaly.flags.writeable


def test_nan_has_no_p_value_and_is_not_flagged() -> None:
    calibration = Calibration.from_scores([1.0, 2.0])
    assert np.isnan(calibration.p_value(math.nan))
    assert not calibration.flagged(math.nan, 0.9)


def test_the_shape_of_the_scores_is_kept() -> None:
    calibration = Calibration.from_scores([1.0, 2.0])
    assert calibration.p_value(1.0).shape == ()
    assert calibration.p_value(np.zeros((2, 3), dtype=np.float32)).shape == (2, 3)
    assert calibration.flagged(np.zeros((0,)), 0.5).shape == (0,)


def test_saved_calibrations_are_read_back_exactly(tmp_path: Path) -> None:
    calibrations = {"msp": Calibration.from_scores([0.1, 0.3]), "energy": Calibration.from_scores([-5.0])}
    save_calibrations(tmp_path / "calibration.npz", calibrations)
    loaded = load_calibrations(tmp_path / "calibration.npz")
    assert set(loaded) == {"msp", "energy"}
    for name, calibration in calibrations.items():
        np.testing.assert_array_equal(loaded[name].anomaly, calibration.anomaly)


def test_the_same_calibrations_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = Calibration.from_scores([0.1]), Calibration.from_scores([0.2])
    save_calibrations(tmp_path / "a.npz", {"msp": first, "energy": second})
    save_calibrations(tmp_path / "b.npz", {"energy": second, "msp": first})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.array([2.0, 1.0]),
        np.array([1.0, 3.0, 2.0]),
        np.array([1.0], dtype=np.float32),
        np.array([math.nan]),
        np.array([{}], dtype=object),
    ],
)
def test_an_array_that_is_not_a_calibration_is_refused_by_name(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "calibration.npz", msp=array)
    with pytest.raises(CalibrationInvalid, match=r"calibration.npz\[msp\]"):
        load_calibrations(tmp_path / "calibration.npz")


def test_a_single_array_is_not_a_calibration_file(tmp_path: Path) -> None:
    with (tmp_path / "calibration.npz").open("wb") as file:
        np.save(file, np.array([1.0]))
    with pytest.raises(CalibrationInvalid, match="single array"):
        load_calibrations(tmp_path / "calibration.npz")


@given(position=st.integers(0, 10_000), value=st.integers(0, 255), keep=st.integers(0, 10_000))
def test_a_damaged_calibration_file_is_refused_or_read_but_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, keep: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "calibration.npz"
    save_calibrations(path, {"msp": Calibration.from_scores([0.1, 0.2]), "energy": Calibration.from_scores([1.0, 2.0])})
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data[: keep % (2 * len(data))])
    with contextlib.suppress(CalibrationInvalid):
        assert all(np.isfinite(calibration.anomaly).all() for calibration in load_calibrations(path).values())
