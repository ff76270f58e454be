"""The command `paper`: the figures of bundles next to the paper's, and a note where nothing was measured."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bundle import MANIFEST_NAME, SCORES, load_bundle, seal_bundle
from tests.support.tiny_bundle import make_tiny_bundle
from training.commands.app import app, main
from training.evaluation import ProbabilityResult, Report, SetResult
from training.evaluation.report import Spread
from training.paper import latest_reports, paper_tables

ROOT = Path(__file__).parents[3]


def report(fpr95: float, stages: tuple[str, ...], probabilities: list[ProbabilityResult]) -> Report:
    def result(name: str, stage: str, offset: float) -> SetResult:
        spread = Spread(mean=fpr95 + offset, deviation=0)
        return SetResult(set=name, stage=stage, score="msp", fpr95=spread, auroc=spread, aupr=spread, flagged=0)

    return Report(
        alpha=0.01,
        draws=2,
        default_score="msp",
        in_dist="test",
        in_dist_size=100,
        calibration_size=100,
        sets={"lakes": "lakes", "tuning": "to choose by"},
        validation=("tuning",),
        error=dict.fromkeys(stages, 10.0),
        results=[result(name, stage, i) for name in ("lakes", "mean") for i, stage in enumerate(stages)],
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
) -> Path:
    """A bundle of `recipe` whose report has `fpr95` as the value of every metric, one percent more in each stage."""
    folder = make_tiny_bundle(models, name=recipe, version=version)
    manifest = load_bundle(folder).manifest
    (folder / MANIFEST_NAME).unlink()
    (folder / "report").mkdir()
    (folder / "report" / "report.json").write_text(report(fpr95, stages, probabilities or []).to_json())
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


def test_the_figures_of_a_bundle_are_shown_next_to_the_papers(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-fine-tune")
    cells = rows(tmp_path, "Table 1")["CIFAR-10"]
    assert cells[:3] == ["cifar10-wrn-fine-tune version 1", "40.0 → 41.0", "34.9 → 9.5"]
    assert cells[4] == "89.3 → 97.8"


def test_a_row_without_a_bundle_names_the_recipe_that_would_make_one(tmp_path: Path) -> None:
    table = rows(tmp_path, "Table 1")
    assert table["CIFAR-10"][:2] == ["not run at paper scale (cifar10-wrn-fine-tune.yaml)", ""]
    assert table["CIFAR-10"][2] == "34.9 → 9.5"


def test_the_newest_version_is_shown(tmp_path: Path) -> None:
    for version, fpr95 in (("9", 20.0), ("10", 30.0)):
        reported_bundle(tmp_path, "cifar10-wrn-scratch", version=version, fpr95=fpr95)
    assert rows(tmp_path, "Table 1")["CIFAR-10, from scratch"][1] == "30.0 → 31.0"


def test_a_run_of_one_stage_has_no_baseline(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-wrn-scratch", stages=("oe",))
    assert rows(tmp_path, "Table 1")["CIFAR-10, from scratch"][:2] == ["cifar10-wrn-scratch version 1", "→ 40.0"]
    assert "its baseline" not in section(tmp_path, "Table 1")


def test_a_stage_between_the_baseline_and_the_last_is_shown_between_them(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-gan-wrn", stages=("baseline", "joint_confidence", "oe"))
    cells = rows(tmp_path, "Synthetic outliers")["CIFAR-10, GAN, then real outliers"]
    assert cells[:3] == ["cifar10-gan-wrn version 1", "40.0 → 41.0 → 42.0", ""]


def test_sets_on_which_the_last_stage_does_not_beat_the_baseline_are_named_with_metrics_and_reason(
    tmp_path: Path,
) -> None:
    reported_bundle(tmp_path, "cifar10-noise-outliers")
    text = section(tmp_path, "Synthetic outliers")
    # The stage's AUROC and AUPR are higher, and so better.
    assert "not better than its baseline on lakes (FPR95 40.00 → 41.00). Noise teaches" in text
    assert "AUROC 40" not in text


def test_a_set_on_which_both_stages_are_perfect_counts_as_beaten(tmp_path: Path) -> None:
    folder = reported_bundle(tmp_path, "cifar10-oe")
    manifest = load_bundle(folder).manifest
    path = folder / "report" / "report.json"
    perfect = {"fpr95": 0.0, "auroc": 100.0, "aupr": 100.0}
    measured = Report.from_json(path.read_text())
    results = [
        row.model_copy(update={metric: Spread(mean=value, deviation=0) for metric, value in perfect.items()})
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


def test_the_figures_are_in_the_package() -> None:
    assert '"paper/*.yaml"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_bundle_in_lower_precision_does_not_stand_for_its_run(tmp_path: Path) -> None:
    reported_bundle(tmp_path, "cifar10-oe", version="1")
    reported_bundle(tmp_path, "cifar10-oe", version="2", precision="int8")
    assert latest_reports(tmp_path)["cifar10-oe"].version == 1
