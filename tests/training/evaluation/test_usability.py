"""Usability: the first line of a report says whether the detector is usable, by the flagged share, and what to do."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import Calibration
from training.evaluation import (
    PARTLY_USEFUL,
    USEFUL,
    EvaluationInputs,
    Report,
    StageScores,
    Usability,
    assess,
    evaluate_stages,
    markdown,
)

NORMAL = np.random.default_rng(3).normal(0, 1, 2000)
"""In-distribution anomalies: half for calibration, half for testing."""


def anomalies(flagged: float, n: int = 200) -> NDArray[np.float64]:
    """Anomalies of which the share `flagged` is above every in-distribution one, and the others below."""
    return np.where(np.arange(n) < round(flagged * n), 100.0, -100.0)


def report_of(shares: Mapping[str, Mapping[str, float]], **changes: Any) -> Report:
    """The report of a detector that flags these shares of each set, by score."""
    scores = tuple(next(iter(shares.values())))
    sets = {name: {score: anomalies(share) for score, share in row.items()} for name, row in shares.items()}
    return evaluate(sets, dict.fromkeys(scores, NORMAL[1000:]), **changes)


def evaluate(
    ood: Mapping[str, Mapping[str, NDArray[np.float64]]], in_dist: Mapping[str, NDArray[np.float64]], **changes: Any
) -> Report:
    """The report of a detector with these anomalies, calibrated on the first half of `NORMAL`."""
    calibration = Calibration.from_scores(NORMAL[:1000])
    return evaluate_stages(
        EvaluationInputs(
            stages={"oe": StageScores(in_dist=in_dist, ood=ood, calibrations=dict.fromkeys(in_dist, calibration))},
            title="Title",
            alpha=0.01,
            draws=2,
            seed=1,
            default_score=next(iter(in_dist)),
            in_dist="photos",
            sets=dict.fromkeys(ood, "a set"),
            provenance={},
            **changes,
        )
    )


def usability(shares: Mapping[str, float], **changes: Any) -> Usability:
    return assess(report_of({name: {"msp": share} for name, share in shares.items()}, **changes), "oe", ["Remedy."])


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({"cats": USEFUL / 100}, "useful"),
        ({"cats": 0.74}, "partly useful"),
        ({"cats": PARTLY_USEFUL / 100}, "partly useful"),
        ({"cats": 0.03}, "not useful"),
        # One kind of input that is hardly detected.
        ({"cats": 1.0, "dogs": 1.0, "birds": 1.0, "fish": 0.2}, "partly useful"),
    ],
)
def test_the_verdict_follows_the_flagged_share_of_the_test_data(shares: dict[str, float], verdict: str) -> None:
    assert usability(shares).verdict == verdict


def test_the_page_begins_with_the_verdict_the_flagged_share_and_the_remedy() -> None:
    report = report_of({"cats": {"msp": 0.02}, "dogs": {"msp": 0.04}})
    page = markdown(report.model_copy(update={"usability": assess(report, "oe", ["Remedy."])}), "Title")
    title, line = page.splitlines()[0:3:2]
    assert title == "# Title"
    assert line.startswith("**Not useful: flags 3.0% of the OOD test data at alpha 0.01 (least: cats 2.0%) and ")
    assert line.endswith("Remedy.**")


def test_a_useful_detector_needs_no_remedy() -> None:
    assert usability({"cats": 0.9}).advice == ()


def test_noise_and_outliers_like_those_trained_on_do_not_count_if_there_are_other_data() -> None:
    shares = {"cats": 0.1, "like": 1.0, "noise": 1.0}
    found = usability(shares, upper_bounds=("like",), synthetic=("noise",))
    assert (found.sets, found.verdict) == (("cats",), "not useful")


def test_noise_alone_proves_no_use() -> None:
    found = usability({"noise": 1.0}, synthetic=("noise",))
    assert found.verdict == "unknown"
    assert "Test it on real data of other kinds" in str(found)
    assert usability({"noise": 0.1}, synthetic=("noise",)).verdict == "not useful"


def test_outliers_like_those_trained_on_give_an_upper_bound() -> None:
    assert "upper bound" in str(usability({"like": 1.0}, upper_bounds=("like",)))


def test_a_score_that_flags_more_is_suggested() -> None:
    report = report_of({"cats": {"msp": 0.1, "energy": 0.6}})
    assert "energy flags 60.0% (export.default_score=energy" in str(assess(report, "oe"))
    assert "Try another score" not in str(assess(report_of({"cats": {"msp": 0.1, "energy": 0.15}}), "oe"))


def test_a_larger_alpha_that_flags_more_is_suggested() -> None:
    in_dist = {"msp": NORMAL[1000:]}
    above_five_percent = Calibration.from_scores(NORMAL[:1000]).threshold(0.05) + 1e-6
    report = evaluate({"cats": {"msp": np.full(100, above_five_percent)}}, in_dist)
    assert "At alpha 0.05 it flags 100.0%." in str(assess(report, "oe"))
    assert "At alpha" not in str(usability({"cats": 0.1}))


def test_too_many_false_flags_make_a_detector_at_most_partly_useful() -> None:
    report = evaluate({"cats": {"msp": anomalies(1.0)}}, {"msp": NORMAL[1000:] + 2})
    assert assess(report, "oe").verdict == "partly useful"
    assert "flagged more often than calibration explains" in str(assess(report, "oe"))


def test_the_verdict_is_part_of_the_json_file() -> None:
    report = report_of({"cats": {"msp": 0.5}})
    report = report.model_copy(update={"usability": assess(report, "oe")})
    assert Report.from_json(report.to_json()).usability == report.usability
