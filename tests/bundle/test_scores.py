import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import LOGIT_SCORES, SCORES, UnknownScore, get_score

# Offset and sign. Calibrations that were exported with other values would be wrong.
ORIENTATIONS = {
    "msp": (1.0, -1),
    "max_logit": (0.0, -1),
    "energy": (0.0, 1),
    "entropy": (0.0, 1),
    "kl_uniform": (0.0, -1),
    "gen": (0.0, 1),
    "confidence": (1.0, -1),
    "mahalanobis": (0.0, 1),
    "knn": (0.0, 1),
    "combined": (0.0, 1),
    "bpp": (0.0, 1),
    "bpc": (0.0, 1),
    "bpw": (0.0, 1),
}


def test_the_orientation_of_a_released_score_never_changes() -> None:
    assert {name: (score.offset, score.sign) for name, score in SCORES.items()} == ORIENTATIONS


def test_every_score_is_registered_under_its_name() -> None:
    assert all(score.name == name for name, score in SCORES.items())


def test_the_scores_that_any_classifier_has_are_those_of_logits() -> None:
    assert LOGIT_SCORES == ("msp", "max_logit", "energy", "entropy", "kl_uniform", "gen")


@pytest.mark.parametrize(
    ("name", "in_distribution", "out_of_distribution"),
    [
        ("msp", 0.99, 0.4),
        ("max_logit", 12.0, 3.0),
        ("energy", -12.0, -3.0),
        ("entropy", 0.01, 2.3),
        ("kl_uniform", 9.0, 2.31),
        ("gen", 1.2, 7.0),
        ("confidence", 0.95, 0.1),
        ("mahalanobis", 0.9, 3.0),
        ("knn", 0.3, 1.1),
        ("combined", 0.2, 3.0),
        ("bpp", 2.9, 6.0),
        ("bpc", 1.2, 4.0),
        ("bpw", 5.0, 11.0),
    ],
)
def test_a_larger_anomaly_is_more_anomalous(name: str, in_distribution: float, out_of_distribution: float) -> None:
    score = get_score(name)
    assert score.anomaly(out_of_distribution) > score.anomaly(in_distribution)


@pytest.mark.parametrize("name", ["msp", "confidence"])
def test_a_probability_becomes_its_complement(name: str) -> None:
    np.testing.assert_array_equal(get_score(name).anomaly(np.array([0.25, 1.0], dtype=np.float32)), [0.75, 0.0])


@given(name=st.sampled_from(list(SCORES)), value=st.floats(-1e6, 1e6))
def test_value_inverts_anomaly(name: str, value: float) -> None:
    score = get_score(name)
    assert score.value(score.anomaly(value)) == pytest.approx(value, abs=1e-9)


@given(name=st.sampled_from(list(SCORES)), value=st.floats())
def test_one_number_alone_has_the_anomaly_that_it_has_in_an_array(name: str, value: float) -> None:
    score = get_score(name)
    np.testing.assert_array_equal(score.anomaly_of(value), score.anomaly([value])[0])


def test_anomaly_is_float64_of_the_same_shape() -> None:
    anomaly = get_score("msp").anomaly(np.zeros((2, 3), dtype=np.float32))
    assert anomaly.shape == (2, 3)
    assert anomaly.dtype == np.float64


def test_an_unknown_score_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownScore, match=r"'mps'.*msp, max_logit"):
        get_score("mps")
