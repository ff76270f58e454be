"""The report: its figures in the JSON file, the page, the manifest and the plots."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle import Calibration, false_flag_rate
from training.evaluation import (
    AurocChange,
    EvaluationInputs,
    PrecisionComparison,
    Report,
    StageLogits,
    StageScores,
    detection_metrics,
    evaluate_stages,
    manifest_evaluation,
    markdown,
    plot_histograms,
    plot_reliability,
    plot_rocs,
    write_report,
)

ROOT = Path(__file__).parents[3]
SETS = {"near": "close by", "far": "far away", "tuning": "to choose by"}


def stage(shift: float, error: float) -> StageScores:
    generator = np.random.default_rng(7)
    names = ("msp", "energy")
    return StageScores(
        in_dist={name: generator.normal(0, 1, 1000) for name in names},
        ood={ood: {name: generator.normal(shift, 1, 200) for name in names} for ood in SETS},
        calibrations={name: Calibration.from_scores(generator.normal(0, 1, 999)) for name in names},
        error=error,
        logits=StageLogits(
            in_dist=generator.normal(0, 3, (1000, 4)),
            targets=generator.integers(0, 4, 1000),
            ood={name: generator.normal(0, 3 - shift, (200, 4)) for name in SETS},
            temperature=2.5,
        ),
    )


COMPARISON = PrecisionComparison(
    precision="int8",
    full="oe",
    low_precision="oe int8",
    limit=0.1,
    changes=[
        AurocChange(set="near", score="msp", before=90.0, after=90.05),
        AurocChange(set="far", score="msp", before=99.0, after=98.88),
        AurocChange(set="tuning", score="msp", before=80.0, after=80.1),
    ],
)
STAGES = {"baseline": stage(1.0, 0.1), "oe": stage(3.0, 0.08)}
INPUTS = EvaluationInputs(
    stages=STAGES,
    title="Title",
    alpha=0.05,
    draws=4,
    seed=1,
    default_score="msp",
    in_dist="testland",
    sets=SETS,
    validation=("tuning",),
    provenance={"hardware": "abacus"},
)


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate_stages(INPUTS)


def test_results_are_the_metrics_of_the_scores_in_percent(report: Report) -> None:
    # 200 outliers are one per five of 1000: every draw takes them all.
    expected = detection_metrics(STAGES["oe"].in_dist["msp"], STAGES["oe"].ood["near"]["msp"])
    result = report.find("near", "oe", "msp")
    assert result.auroc.mean == pytest.approx(100 * expected.auroc, abs=1e-3)
    assert result.fpr95.mean == pytest.approx(100 * expected.fpr95, abs=1e-3)
    assert result.auroc.deviation == pytest.approx(0, abs=1e-3)


def test_the_mean_row_averages_the_test_sets(report: Report) -> None:
    rows = [report.find(name, "oe", "energy").aupr.mean for name in ("near", "far")]
    assert report.find("mean", "oe", "energy").aupr.mean == pytest.approx(np.mean(rows), abs=1e-2)


def test_the_report_states_the_guarantee_for_its_calibration_size(report: Report) -> None:
    rate = false_flag_rate(999, 0.05)
    interval = report.false_flag_interval
    assert interval is not None
    assert (interval.lower, interval.upper) == pytest.approx((100 * rate.lower, 100 * rate.upper), abs=1e-3)
    assert interval.exceeds_alpha == pytest.approx(100 * rate.exceeds_alpha, abs=1e-3)
    assert interval.smallest_alpha == 1 / 1000
    assert f"Guarantee: {rate}." in markdown(report, "Title")


def test_a_report_without_the_interval_still_loads(report: Report) -> None:
    older = json.loads(report.to_json())
    del older["false_flag_interval"]
    loaded = Report.from_json(json.dumps(older))
    assert loaded.false_flag_interval is None
    assert markdown(loaded, "Title") == markdown(report, "Title")


def test_flags_are_those_of_each_stages_own_calibration(report: Report) -> None:
    scores = STAGES["oe"]
    expected = scores.calibrations["msp"].flagged(scores.ood["far"]["msp"], 0.05).mean()
    assert report.find("far", "oe", "msp").flagged == pytest.approx(100 * expected)
    assert all(2 < row.flagged < 8 for row in report.false_flags)


def test_a_report_read_from_its_json_is_the_same_report(report: Report) -> None:
    compared = report.model_copy(update={"comparison": COMPARISON})
    for original in (report, compared):
        assert Report.from_json(original.to_json()) == original


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/*/report/report.json")), ids=lambda path: path.parts[-4])
def test_the_keys_of_shipped_reports_do_not_change(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    report = Report.from_json(text)
    # Reports of earlier versions lack the newer keys, which have defaults.
    assert report.model_dump_json(by_alias=True, indent=1, exclude_unset=True) + "\n" == text
    assert Report.from_json(report.to_json()) == report


def test_the_keys_of_the_json_file_do_not_change(report: Report) -> None:
    stored = json.loads(report.model_copy(update={"comparison": COMPARISON}).to_json())
    assert stored.keys() >= {
        "alpha", "draws", "default_score", "inside", "inside_size", "calibration_size", "sets", "validation", "error",
        "results", "false_flags", "probabilities", "bits", "comparison", "provenance",
    }  # fmt: skip
    assert stored.keys().isdisjoint({"in_dist", "in_dist_size"})
    assert (stored["inside"], stored["inside_size"]) == ("testland", 1000)
    assert list(stored["probabilities"][0]) == [
        "stage", "inputs", "tuned", "temperature", "size", "rms", "mad", "soft_f1",
    ]  # fmt: skip
    assert list(stored["comparison"]) == ["precision", "full", "variant", "limit", "changes"]


def test_the_page_shows_stages_side_by_side_with_the_better_bold(report: Report) -> None:
    page = markdown(report, "Title")
    row = next(line for line in page.splitlines() if line.startswith("| near |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")[1:]]
    assert len(cells) == 6
    assert [cell.startswith("**") for cell in cells] == [False, True] * 3
    assert "| classification error | 10.00 | 8.00 |" in page
    assert "- hardware: abacus" in page
    assert "- **far**: far away" in page


def test_validation_sets_have_a_section_of_their_own(report: Report) -> None:
    before, section = markdown(report, "Title").split("## Validation sets")
    assert "| tuning |" not in before
    assert "| tuning |" in section


def test_the_page_shows_probabilities_without_and_with_temperature(report: Report) -> None:
    section = markdown(report, "Title").split("## Calibration of probabilities")[1].split("## The sets")[0]
    rows = [line for line in section.splitlines() if line.startswith(("| in-dist", "| mixture"))]
    assert [row.split("|")[1].strip() for row in rows] == [
        "in-distribution (1,000)",
        "in-distribution, with temperature (1,000)",
        "mixture (1,200)",
        "mixture, with temperature (1,200)",
    ]
    assert "RMS baseline | RMS oe | MAD baseline | MAD oe | soft F1 baseline | soft F1 oe" in section
    assert "baseline 2.500, oe 2.500" in section


def test_a_report_from_before_probabilities_were_measured_still_loads(report: Report) -> None:
    old = Report.model_validate_json(report.model_dump_json(by_alias=True, exclude={"probabilities"}))
    assert old.probabilities == []
    assert "Calibration of probabilities" not in markdown(old, "Title")


def test_the_page_names_the_largest_change_in_lower_precision(report: Report) -> None:
    page = markdown(report.model_copy(update={"comparison": COMPARISON}), "Title")
    assert "The largest change is -0.120 points: far by `msp`, from 99.000 to 98.880." in page
    assert "| near | msp | 90.000 | 90.050 | +0.050 |" in page
    assert "## AUROC in int8" not in markdown(report, "Title")


def test_changes_beyond_the_limit_are_listed_the_largest_first() -> None:
    assert COMPARISON.largest.set == "far"
    # A change of exactly the limit counts.
    assert [change.set for change in COMPARISON.beyond_limit] == ["far", "tuning"]


def test_all_files_of_a_report_are_written(report: Report, tmp_path: Path) -> None:
    write_report(report, INPUTS, tmp_path / "report")
    files = {"report.json", "report.md", "histograms.png", "roc.png", "reliability.png"}
    assert {file.name for file in (tmp_path / "report").iterdir()} == files
    assert Report.from_json((tmp_path / "report" / "report.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "report" / "report.md").read_text(encoding="utf-8") == markdown(report, "Title")


def test_stages_without_logits_have_no_probabilities_and_no_reliability_plot(tmp_path: Path) -> None:
    bare = {name: replace(scores, logits=None) for name, scores in STAGES.items()}
    plot_reliability(bare, ("near",), 1, tmp_path / "reliability.png")
    assert not list(tmp_path.iterdir())


def test_the_reliability_plot_is_a_small_picture(tmp_path: Path) -> None:
    path = tmp_path / "report" / "reliability.png"
    plot_reliability(STAGES, ("near", "far"), 1, path)
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_manifest_has_the_figures_of_all_stages_and_the_error_of_the_exported_one(report: Report) -> None:
    summary = manifest_evaluation(report, "oe")
    assert summary.error_percent == 8.0
    assert {(row.name, row.stage, row.score) for row in summary.sets} == {
        (name, stage, score) for name in ("near", "far", "mean") for stage in STAGES for score in ("msp", "energy")
    }


@pytest.mark.parametrize("plot", [plot_histograms, plot_rocs])
def test_plots_are_small_pictures(tmp_path: Path, plot: object) -> None:
    path = tmp_path / "report" / "plot.png"
    assert callable(plot)
    plot(STAGES, "msp", path)
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
