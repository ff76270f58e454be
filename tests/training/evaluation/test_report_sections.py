"""Sections of a report: recalls, near and far sets, and the shares flagged at 1% and 5% false flags."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle import Calibration
from training.evaluation import (
    EvaluationInputs,
    Report,
    StageScores,
    authors_fpr_at_recall,
    evaluate_stages,
    fpr_at_recall,
    markdown,
)

ROOT = Path(__file__).parents[3]
SETS = {"dogs": "similar", "noise": "different", "signs": "different", "tuning": "to choose by"}


def stage(shift: float, calibration_size: int = 999) -> StageScores:
    generator = np.random.default_rng(7)
    return StageScores(
        in_dist={"msp": generator.normal(0, 1, 1000)},
        ood={name: {"msp": generator.normal(shift + i, 1, 200)} for i, name in enumerate(SETS)},
        calibrations={"msp": Calibration.from_scores(generator.normal(0, 1, calibration_size))},
    )


STAGES = {"baseline": stage(1.0), "oe": stage(2.0)}
INPUTS = EvaluationInputs(
    stages=STAGES,
    title="Title",
    alpha=0.01,
    draws=3,
    seed=1,
    default_score="msp",
    in_dist="testland",
    sets=SETS,
    validation=("tuning",),
    near=("dogs",),
    recalls=(0.9,),
    provenance={},
)


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate_stages(INPUTS)


def first_cells(page: str) -> list[str]:
    """The first cells of the rows of the first detection table."""
    table = page.split("## By ")[1].split("\n\n")[1]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_a_result_has_the_false_positive_rates_at_each_recall_by_both_rules(report: Report) -> None:
    result = report.find("dogs", "oe", "msp")
    # 200 outliers are one per five of 1000: every draw has all scores.
    scores = STAGES["oe"].in_dist["msp"], STAGES["oe"].ood["dogs"]["msp"]
    assert report.recalls == [0.95, 0.9]
    for recall in report.recalls:
        rates = result.rates_at(recall)
        assert rates is not None
        assert rates.fpr.mean == pytest.approx(100 * fpr_at_recall(*scores, recall), abs=1e-3)
        assert rates.authors.mean == pytest.approx(100 * authors_fpr_at_recall(*scores, recall), abs=1e-3)
    assert result.fpr95 == result.fpr_at_recall[0].fpr
    assert result.rates_at(0.5) is None


def test_the_page_has_a_column_for_each_recall(report: Report) -> None:
    page = markdown(report, "Title")
    assert "FPR at 95% and 90% TPR" in page
    assert "| FPR95 baseline | FPR95 oe | FPR90 baseline | FPR90 oe | AUROC baseline |" in page
    rates = report.find("noise", "oe", "msp").rates_at(0.9)
    assert rates is not None
    assert f"{rates.fpr.mean:.2f} ± {rates.fpr.deviation:.2f}" in page


def test_near_and_far_sets_are_grouped_with_means_of_their_own(report: Report) -> None:
    assert first_cells(markdown(report, "Title")) == [
        "dogs", "*mean near*", "noise", "signs", "*mean far*", "*mean*",
    ]  # fmt: skip
    near, far, mean = (report.find(name, "oe", "msp") for name in ("mean near", "mean far", "mean"))
    rows = {name: report.find(name, "oe", "msp") for name in SETS}
    assert near.auroc.mean == pytest.approx(rows["dogs"].auroc.mean)
    assert far.fpr_at_recall[1].authors.mean == pytest.approx(
        np.mean([rows[name].fpr_at_recall[1].authors.mean for name in ("noise", "signs")]), abs=1e-2
    )
    assert mean.auroc.mean == pytest.approx((near.auroc.mean + 2 * far.auroc.mean) / 3, abs=1e-2)


def test_without_near_sets_there_is_one_mean() -> None:
    plain = evaluate_stages(replace(INPUTS, near=()))
    assert first_cells(markdown(plain, "Title")) == ["dogs", "noise", "signs", "*mean*"]
    assert {row.set for row in plain.results} == {*SETS, "mean"}


def test_the_flagged_shares_are_those_of_the_calibrated_thresholds(report: Report) -> None:
    scores = STAGES["oe"]
    for name in SETS:
        shares = report.find(name, "oe", "msp").flagged_at
        assert [share.alpha for share in shares] == [0.01, 0.05]
        for share in shares:
            flagged = scores.calibrations["msp"].flagged(scores.ood[name]["msp"], share.alpha).mean()
            assert share.flagged == pytest.approx(100 * flagged)
    false_flags = next(row for row in report.false_flags if row.stage == "oe")
    assert false_flags.flagged_at[0].flagged == false_flags.flagged
    assert 3 < (false_flags.flagged_at[1].flagged or 0) < 7


def test_the_page_shows_the_flagged_shares_at_one_and_at_five_percent(report: Report) -> None:
    page = markdown(report, "Title")
    assert page.count("## Flags at alpha = 0.01") == page.count("## Flags at alpha = 0.05") == 1
    section = page.split("## Flags at alpha = 0.05")[1].split("##")[0]
    shares = [report.find("noise", stage, "msp").flagged_at[1].flagged for stage in STAGES]
    assert f"| noise | {shares[0]:.2f} | {shares[1]:.2f} |" in section
    both = markdown(evaluate_stages(replace(INPUTS, alpha=0.1)), "Title")
    assert [line for line in both.splitlines() if line.startswith("## Flags")] == [
        "## Flags at alpha = 0.1", "## Flags at alpha = 0.01", "## Flags at alpha = 0.05",
    ]  # fmt: skip


def test_too_few_calibration_inputs_for_a_flag_give_no_share() -> None:
    few = evaluate_stages(replace(INPUTS, alpha=0.1, stages={"oe": stage(2.0, calibration_size=50)}))
    shares = few.find("noise", "oe", "msp").flagged_at
    assert shares[0].flagged is None
    assert shares[1].flagged is not None
    assert few.find("mean", "oe", "msp").flagged_at[0].flagged is None
    section = markdown(few, "Title").split("## Flags at alpha = 0.01")[1].split("##")[0]
    assert section.strip() == "50 calibration inputs are too few for a flag at this alpha."


def test_a_report_without_these_figures_loads_and_has_a_page() -> None:
    text = (ROOT / "models" / "trec-gru" / "1" / "report" / "report.json").read_text(encoding="utf-8")
    old = Report.from_json(text)
    assert old.find("mean", "oe", "msp").rates_at(0.95) is None or old.recalls
    stripped = old.model_copy(
        update={
            "near": (),
            "results": [row.model_copy(update={"fpr_at_recall": [], "flagged_at": []}) for row in old.results],
            "false_flags": [row.model_copy(update={"flagged_at": []}) for row in old.false_flags],
        }
    )
    page = markdown(stripped, "Title")
    assert "FPR at 95% TPR" in page
    assert "| FPR95 baseline | FPR95 control | FPR95 oe | AUROC baseline |" in page
    assert "## Flags at alpha = 0.05" not in page
