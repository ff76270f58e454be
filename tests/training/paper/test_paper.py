"""The command `paper`: the figures of bundles next to the paper's, and a note where nothing was measured."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bundle import MANIFEST_NAME, SCORES, load_bundle, seal_bundle
from tests.support.tiny_bundle import make_tiny_bundle
from training.commands.app import app, main
from training.evaluation import ProbabilityResult, Report, SetResult
from training.evaluation.report import FlaggedShare, FprAtRecall, Spread
from training.paper import latest_reports, paper_tables

ROOT = Path(__file__).parents[3]


def report(
    fpr95: float,
    stages: tuple[str, ...],
    probabilities: list[ProbabilityResult],
    *,
    sets: tuple[str, ...] = ("lakes",),
    near: tuple[str, ...] = (),
    is_old: bool = False,
) -> Report:
    """A report whose metrics are all `fpr95`, plus one per further stage; the authors' rates are 10 higher.

    FPR90 is 20 lower than FPR95. An old report has neither, and no shares at 1% and 5% false flags.
    """

    def result(name: str, stage: str, offset: float) -> SetResult:
        def spread(value: float) -> Spread:
            return Spread(mean=value + offset, deviation=0)

        rates = [
            FprAtRecall(recall=recall, fpr=spread(fpr), authors=spread(fpr + 10))
            for recall, fpr in ((0.95, fpr95), (0.9, fpr95 - 20))
        ]
        return SetResult(
            set=name,
            stage=stage,
            score="msp",
            fpr95=spread(fpr95),
            auroc=spread(fpr95),
            aupr=spread(fpr95),
            flagged=0,
            fpr_at_recall=[] if is_old else rates,
            flagged_at=[] if is_old else [FlaggedShare(alpha=0.01, flagged=None), FlaggedShare(alpha=0.05, flagged=77)],
        )

    means = [*(["mean near", "mean far"] if near else []), "mean"]
    return Report(
        alpha=0.01,
        draws=2,
        default_score="msp",
        in_dist="test",
        in_dist_size=100,
        calibration_size=100,
        sets={name: name for name in (*sets, "tuning")},
        validation=("tuning",),
        near=near,
        error=dict.fromkeys(stages, 10.0),
        results=[result(name, stage, i) for name in (*sets, *means) for i, stage in enumerate(stages)],
        false_flags=[],
        probabilities=probabilities,
        provenance={"recipe": "r.yaml", **{f"stage {stage}": "3 epochs in 2 minutes on an abacus" for stage in stages}},
    )


def reported_bundle(
    models: Path,
    recipe: str,
    *,
    version: str = "1",
    fpr95: float = 40.0,
    stages: tuple[str, ...] = ("baseline", "oe"),
    probabilities: list[ProbabilityResult] | None = None,
    precision: str = "fp32",
    sets: tuple[str, ...] = ("lakes",),
    near: tuple[str, ...] = (),
    is_old: bool = False,
) -> Path:
    """A bundle of `recipe` whose report has `fpr95` as the value of every metric, one percent more in each stage."""
    folder = make_tiny_bundle(models, name=recipe, version=version)
    manifest = load_bundle(folder).manifest
    (folder / MANIFEST_NAME).unlink()
    (folder / "report").mkdir()
    written = report(fpr95, stages, probabilities or [], sets=sets, near=near, is_old=is_old)
    (folder / "report" / "report.json").write_text(written.to_json())
    training = {
        "recipe": f"{recipe}.yaml",
        "recipe_sha256": "0" * 64,
        "data": [
            {"role": role, "name": "parquet", "source": "data/parquet", "rows": size, "sha256": "0" * 64}
            for role, size in (("in-distribution train", 1200), ("in-distribution test", 100), ("outliers", 3400))
        ],
        "seed": 1,
        "objective": "outlier_exposure",
        "stage": stages[-1],
        "commit": None,
        "packages": {},
        "hardware": "an abacus",
        "seconds": 120.0,
        "started": manifest.created,
    }
    seal_bundle(
        folder,
        manifest.model_dump(exclude={"files", "schema_version"}) | {"training": training, "precision": precision},
    )
    return folder


def section(models: Path, title: str) -> str:
    """The table called `title` and its notes."""
    result = CliRunner().invoke(app, ["paper", "--models", str(models), "--markdown"])
    assert result.exit_code == 0, result.output
    return next(part for part in result.output.split("### ") if part.startswith(title))


def rows(models: Path, title: str) -> dict[str, list[str]]:
    """The cells of each row of the table called `title`, by the row's data; of several rows the last."""
    lines = [line[1:-1].split("|") for line in section(models, title).splitlines() if line.startswith("| ")][2:]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


PAPER = "mean of the paper's sets"


def sets_of(models: Path, title: str, data: str) -> dict[str, list[str]]:
    """The rows of the experiment on `data` in the table called `title`, by set, as cells of figures."""
    figures: dict[str, list[str]] = {}
    current = ""
    for line in section(models, title).splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if not line.startswith("| ") or len(cells) < 5:
            continue
        current = cells[0] or current
        if current == data:
            figures[cells[2]] = cells[3:]
    return figures


def test_the_figures_of_a_bundle_are_shown_next_to_the_papers_of_the_same_set(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune", sets=("gaussian", "lakes"))
    figures = sets_of(tmp_path, "Table 1", "CIFAR-10")
    # FPR95 is that of the authors' rule.
    assert figures["gaussian"][:4] == ["50.0 → 51.0", "14.4 → 0.7", "40.0 → 41.0", "94.7 → 99.6"]
    assert figures["lakes"][:4] == ["50.0 → 51.0", "", "40.0 → 41.0", ""]
    assert rows(tmp_path, "Table 1")["CIFAR-10"][0] == "cifar10-wrn-fine-tune version 1"


def test_means_over_different_sets_are_in_rows_of_their_own(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune", sets=("gaussian", "lakes", "blobs"))
    figures = sets_of(tmp_path, "Table 1", "CIFAR-10")
    assert list(figures) == [
        "gaussian", "lakes", "blobs", "mean of the 2 sets that both have", "mean of the bundle's 3 sets", PAPER,
    ]  # fmt: skip
    # Beside each other: (14.39 + 16.20) / 2 and (0.69 + 0.57) / 2.
    assert figures["mean of the 2 sets that both have"][:2] == ["50.0 → 51.0", "15.3 → 0.6"]
    assert figures["mean of the bundle's 3 sets"][1::2][:3] == ["", "", ""]
    assert figures[PAPER][:6] == ["", "34.9 → 9.5", "", "89.3 → 97.8", "", "59.2 → 90.5"]


def test_texts_and_language_models_are_compared_at_ninety_percent_recall(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "trec-gru")
    assert "| FPR90 | paper |" in section(tmp_path, "Table 2")
    figures = sets_of(tmp_path, "Table 2", "TREC")
    assert figures["lakes"][0] == "30.0 → 31.0"
    assert figures[PAPER][:2] == ["", "43.5 → 0.8"]
    assert {table.recall for table in paper_tables() if table.score in {"bpc", "bpw"}} == {0.9}


def test_near_sets_are_marked_and_have_a_mean_of_their_own(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune", sets=("cifar100", "lakes"), near=("cifar100",))
    assert list(sets_of(tmp_path, "Table 1", "CIFAR-10")) == [
        "cifar100 (near)",
        "lakes",
        "mean of the bundle's 1 near set",
        "mean of the bundle's 1 far set",
        "mean of the bundle's 2 sets",
        PAPER,
    ]


def test_the_shares_that_a_bundle_flags_are_those_of_its_last_stage(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune")
    assert sets_of(tmp_path, "Table 1", "CIFAR-10")["lakes"][-1] == "-, 77.0"


def test_figures_that_an_old_report_lacks_are_blank_and_named(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune", sets=("gaussian", "blobs"), is_old=True)
    figures = sets_of(tmp_path, "Table 1", "CIFAR-10")
    assert figures["gaussian"] == ["", "14.4 → 0.7", "40.0 → 41.0", "94.7 → 99.6", "40.0 → 41.0", "70.0 → 94.3", ""]
    assert figures["mean of the 2 sets that both have"][0] == ""
    notes = section(tmp_path, "Table 1")
    assert "its report has no FPR95 by the authors' tie rule and no shares flagged at 1% and 5%." in notes
    assert "better than its baseline on every test set by AUROC and AUPR." in notes


def test_a_complete_report_is_not_said_to_lack_anything(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune")
    assert "has no" not in section(tmp_path, "Table 1")


def test_an_experiment_without_a_bundle_names_the_recipe_that_would_run_it(tmp_path: Path) -> None:
    table = rows(tmp_path, "Table 1")
    assert table["CIFAR-10"][:3] == ["not run at paper scale (cifar10-wrn-fine-tune.yaml)", PAPER, ""]
    assert table["CIFAR-10"][3] == "34.9 → 9.5"


def test_the_newest_version_is_shown(tmp_path: Path) -> None:
    for version, fpr95 in (("9", 20.0), ("10", 30.0)):
        reported_bundle(tmp_path, "cifar10-wrn-scratch", version=version, fpr95=fpr95)
    assert sets_of(tmp_path, "Table 1", "CIFAR-10, from scratch")["lakes"][0] == "40.0 → 41.0"


def test_a_run_of_one_stage_has_no_baseline(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-scratch", stages=("oe",))
    assert sets_of(tmp_path, "Table 1", "CIFAR-10, from scratch")["lakes"][0] == "→ 50.0"
    assert "its baseline" not in section(tmp_path, "Table 1")


def test_a_stage_between_the_baseline_and_the_last_is_shown_between_them(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-gan-wrn", stages=("baseline", "joint_confidence", "oe"))
    cells = rows(tmp_path, "Synthetic outliers")["CIFAR-10, GAN, then real outliers"]
    assert cells[:3] == ["cifar10-gan-wrn version 1", "lakes", "50.0 → 51.0 → 52.0"]


def test_sets_on_which_the_last_stage_does_not_beat_the_baseline_are_named_with_metrics_and_reason(
    tmp_path: Path,
) -> None:
    reported_bundle(tmp_path, "cifar10-noise-outliers")
    text = section(tmp_path, "Synthetic outliers")
    # The stage's AUROC and AUPR are higher, and so better.
    assert "not better than its baseline on lakes (FPR95 50.00 → 51.00). Noise teaches" in text
    assert "AUROC 40" not in text


def test_a_set_on_which_both_stages_are_perfect_counts_as_beaten(tmp_path: Path) -> None:
    folder = reported_bundle(tmp_path, "cifar10-oe")
    manifest = load_bundle(folder).manifest
    path = folder / "report" / "report.json"
    perfect = {"fpr95": 0.0, "auroc": 100.0, "aupr": 100.0}
    no_error = Spread(mean=0, deviation=0)
    measured = Report.from_json(path.read_text())
    results = [
        row.model_copy(
            update={metric: Spread(mean=value, deviation=0) for metric, value in perfect.items()}
            | {"fpr_at_recall": [FprAtRecall(recall=0.95, fpr=no_error, authors=no_error)]}
        )
        for row in measured.results
    ]
    path.write_text(measured.model_copy(update={"results": results}).to_json())
    seal_bundle(folder, manifest.model_dump(exclude={"files", "schema_version"}))
    assert "better than its baseline on every test set by all three metrics" in section(tmp_path, "Table 1")


def test_a_score_that_was_not_measured_is_not_replaced_by_another(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-confidence")
    cells = rows(tmp_path, "Confidence branch")["CIFAR-10, small network"]
    assert cells[:2] == ["cifar10-confidence version 1: no confidence in its report", ""]


def test_probabilities_are_compared_stage_by_stage(tmp_path: Path) -> None:
    measured = [
        ProbabilityResult(
            stage=stage,
            inputs="mixture",
            with_temperature=True,
            temperature=2.0,
            size=120,
            rms=rms,
            mad=rms - 1,
            soft_f1=50.0,
        )
        for stage, rms in (("baseline", 20.0), ("oe", 5.0))
    ]
    reported_bundle(tmp_path, "cifar10-oe", probabilities=measured)
    cells = rows(tmp_path, "Calibration of probabilities")["CIFAR-10, small network"]
    assert cells == ["cifar10-oe version 1", "mixture, T", "20.0 → 5.0", "19.0 → 4.0", "50.0 → 50.0"]


def test_the_notes_give_the_scale_of_each_run_and_its_test_sets(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-oe")
    result = CliRunner().invoke(app, ["paper", "--models", str(tmp_path)], env={"COLUMNS": "200"})
    text = " ".join(result.output.split())
    assert "baseline: 3 epochs in 2 minutes on an abacus; oe: 3 epochs in 2 minutes on an abacus" in text
    assert "Test sets: lakes." in text
    assert "trained on 1,200 examples and 3,400 outliers" in text


def test_bundles_without_a_report_and_unfinished_exports_are_skipped(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, name="cifar10-oe")
    reported_bundle(tmp_path, "cifar10-oe", version="7").rename(tmp_path / "cifar10-oe" / ".7.partial")
    assert rows(tmp_path, "Table 1")["CIFAR-10, small network"][0].startswith("not run at paper scale")


def test_the_reports_of_the_shipped_models_can_be_read() -> None:
    assert rows(ROOT / "models", "Table 1")["CIFAR-10, small network"][0].startswith("cifar10-oe version")


@pytest.mark.parametrize("damage", ["", "{}"])
def test_an_invalid_report_is_named_in_the_error(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reported_bundle(tmp_path, "cifar10-oe")
    manifest = load_bundle(folder).manifest
    (folder / "report" / "report.json").write_text(damage)
    seal_bundle(folder, manifest.model_dump(exclude={"files", "schema_version"}))
    monkeypatch.setattr("sys.argv", ["ood-train", "paper", "--models", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "report.json: is no report" in "".join(capsys.readouterr().err.split("\n"))


def test_a_missing_repository_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ood-train", "paper", "--models", "nowhere"])
    with pytest.raises(SystemExit):
        main()
    assert "nowhere: is no directory" in capsys.readouterr().err


def test_every_table_has_an_existing_score_and_names_each_recipe_once() -> None:
    for table in paper_tables():
        assert table.score is None or table.score in SCORES
        recipes = [experiment.recipe for experiment in table.experiments]
        assert len(set(recipes)) == len(recipes)


def test_the_papers_means_are_those_of_its_sets() -> None:
    experiments = [experiment for table in paper_tables() for experiment in table.experiments]
    compared = [
        experiment.paper for experiment in experiments if experiment.paper is not None and experiment.paper.sets
    ]
    assert len(compared) == 6
    for paper in compared:
        for stage in ("baseline", "exposed"):
            sets = np.array([getattr(pair, stage) for pair in paper.sets.values()])
            np.testing.assert_allclose(sets.mean(axis=0), getattr(paper.mean, stage), atol=0.06)


def test_the_figures_are_in_the_package() -> None:
    assert '"paper/*.yaml"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_bundle_in_lower_precision_does_not_stand_for_its_run(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-oe", version="1")
    reported_bundle(tmp_path, "cifar10-oe", version="2", precision="int8")
    assert latest_reports(tmp_path)["cifar10-oe"].version == 1
