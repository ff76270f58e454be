"""The command line: from data to a verified bundle, and its errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from bundle import LOGIT_SCORES, decode_image, false_flag_rate, load_bundle
from tests.training.support.datasets_on_disk import checkers, tiny_recipe, write_tiny_data
from training.commands.app import app, main
from training.data import StoredArray
from training.errors import RunError
from training.evaluation import Report
from training.export.onnx_graph import run_graph
from training.fitting.weights import load_model
from training.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, run directory and model repository of a finished `run`."""
    root = tmp_path_factory.mktemp("work")
    write_tiny_data(root / "data")
    (root / "recipe.yaml").write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    arguments = ["run", str(root / "recipe.yaml"), "--data", str(root / "data"), "--run", str(root / "run")]
    result = CliRunner().invoke(
        app, [*arguments, "--models", str(root / "models")], env={"OOD_CACHE": str(root / "cache")}
    )
    assert result.exit_code == 0, result.output
    (root / "output.txt").write_text(result.output, encoding="utf-8")
    return root


def test_run_makes_a_bundle_that_verifies_and_describes_its_training(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "stripes" / "1")
    manifest = bundle.manifest
    assert manifest.labels == ["dark", "bright"]
    assert manifest.calibration.n == 40
    assert manifest.training is not None
    assert manifest.training.stage == "oe"
    roles = {data.role: data.rows for data in manifest.training.data}
    assert roles == {
        "in-distribution train": 160,
        "in-distribution calibration": 40,
        "in-distribution test": 100,
        "outliers": 120,
    }
    assert manifest.parity is not None
    assert max(manifest.parity.max_difference.values()) <= manifest.parity.tolerance
    assert manifest.evaluation is not None
    assert {"report/report.md", "report/report.json", "report/roc.png", "sample.png"} <= set(manifest.files)


def test_the_bundle_flags_unseen_pictures_and_not_its_own_sample(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "stripes" / "1")
    assert bundle.manifest.input.kind == "image"
    sample = decode_image((bundle.path / "sample.png").read_bytes(), bundle.manifest.input)

    def flagged(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        msp = run_graph(bundle.model_path, StoredArray(images))["msp"]
        return bundle.calibrations["msp"].flagged(1 - msp.astype(np.float64), 0.05)

    assert not flagged(sample[None]).any()
    assert flagged(checkers(40, seed=9)).mean() > 0.8


def test_outlier_exposure_beats_the_baseline_in_the_report(finished: Path) -> None:
    report = Report.from_json((finished / "run" / "report" / "report.json").read_text())
    assert set(report.error) == {"baseline", "oe"}
    assert report.find("checkers", "oe", "msp").auroc.mean > 90
    assert report.recalls == [0.95]
    assert report.find("mean", "oe", "msp").auroc.mean >= report.find("mean", "baseline", "msp").auroc.mean


def test_the_report_says_how_honest_each_stages_probabilities_are(finished: Path) -> None:
    report = Report.from_json((finished / "run" / "report" / "report.json").read_text())
    cases = {(row.stage, row.inputs, row.with_temperature): row for row in report.probabilities}
    assert len(cases) == 8
    assert cases["oe", "mixture", True].size == 120
    assert cases["oe", "mixture", True].temperature == cases["oe", "in-distribution", True].temperature
    assert (finished / "run" / "report" / "reliability.png").exists()


def test_each_step_has_a_command_of_its_own(finished: Path) -> None:
    runner, common = CliRunner(), ["--data", str(finished / "data")]
    run = str(finished / "run")
    for step in ("calibrate", "evaluate"):
        assert runner.invoke(app, [step, run, *common]).exit_code == 0, step
    again = runner.invoke(app, ["fit", str(finished / "recipe.yaml"), "--run", run, *common])
    assert again.exit_code == 0
    assert "finished earlier" in again.output


def test_a_run_that_was_calibrated_without_temperatures_must_be_calibrated_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "run" / "calibration" / "oe.temperature").unlink()
    monkeypatch.setattr("sys.argv", ["ood-train", "evaluate", str(tmp_path / "run"), "--data", str(finished / "data")])
    with pytest.raises(SystemExit):
        main()
    assert "stage 'oe' has no temperature" in " ".join(capsys.readouterr().err.split())


def test_evaluating_a_run_that_is_not_calibrated_fails_before_any_data_is_read(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "calibration")
    # This folder has no data: reading some would fail first.
    monkeypatch.setattr("sys.argv", ["ood-train", "evaluate", str(tmp_path / "run"), "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "stage 'baseline' is not calibrated" in " ".join(capsys.readouterr().err.split())


def test_scores_that_are_not_finite_are_one_readable_message(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    path = Run.open(tmp_path / "run").checkpoint_path("oe")
    checkpoint = torch.load(path, weights_only=False)
    for name, value in checkpoint["state_dict"].items():
        if name.endswith("classifier.weight"):
            value.fill_(torch.nan)
    torch.save(checkpoint, path)
    monkeypatch.setattr("sys.argv", ["ood-train", "calibrate", str(tmp_path / "run"), "--data", str(finished / "data")])
    with pytest.raises(SystemExit):
        main()
    assert "calibration scores are NaN or infinite" in " ".join(capsys.readouterr().err.split())


def test_inspect_shows_the_facts_of_a_bundle(finished: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(finished / "models" / "stripes" / "1")], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    for part in ("stripes version 1", "dark, bright", "checkers", "outlier_exposure"):
        assert part in shown.output


def test_the_default_score_is_the_best_on_the_validation_sets_and_the_manifest_records_why(finished: Path) -> None:
    report = Report.from_json((finished / "run" / "report" / "report.json").read_text())
    aurocs = {score: report.find("jigsaw", "oe", score).auroc.mean for score in LOGIT_SCORES}
    manifest = load_bundle(finished / "models" / "stripes" / "1").manifest
    assert manifest.default_score == report.default_score == max(aurocs, key=lambda score: aurocs[score])
    assert manifest.default_score_reason == report.default_score_reason
    assert "validation sets (jigsaw)" in report.default_score_reason
    arguments = ["inspect", str(finished / "models" / "stripes" / "1")]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    assert report.default_score_reason in without_table_borders(shown.output)


def test_a_default_score_that_the_recipe_sets_is_not_changed_by_the_validation_sets(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    for name in ("max_logit", "entropy"):
        change_export(tmp_path / "run", default_score=name)
        export_bundle(finished, tmp_path)
        manifest = load_bundle(tmp_path / "models" / "stripes" / "1").manifest
        assert (manifest.default_score, manifest.default_score_reason) == (name, "set by the recipe")


def test_the_first_score_is_the_default_of_a_run_that_was_not_evaluated(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "report")
    export_bundle(finished, tmp_path)
    manifest = load_bundle(tmp_path / "models" / "stripes" / "1").manifest
    assert manifest.default_score == "msp"
    assert "not evaluated" in (manifest.default_score_reason or "")


def test_an_export_by_a_report_without_one_of_the_scores_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    path = tmp_path / "run" / "report" / "report.json"
    report = Report.from_json(path.read_text())
    rows = [row for row in report.results if row.score != "entropy"]
    path.write_text(report.model_copy(update={"results": rows}).to_json())
    with pytest.raises(RunError, match="no figures of stage 'oe' by entropy"):
        export_bundle(finished, tmp_path)


def without_table_borders(output: str) -> str:
    """The text of a table with the lines of each cell joined: its width depends on the terminal."""
    return " ".join(output.replace("│", " ").split())


def change_export(run: Path, **changes: str) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["export"] |= changes
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def export_bundle(finished: Path, root: Path) -> None:
    """Export the run in `root` to `root/models`; its errors are raised."""
    arguments = ["export", str(root / "run"), "--data", str(finished / "data"), "--models", str(root / "models")]
    result = CliRunner().invoke(app, [*arguments, "--overwrite"], env={"OOD_CACHE": str(finished / "cache")})
    if result.exception is not None:
        raise result.exception


def test_run_and_inspect_print_the_false_flag_rate_that_the_calibration_guarantees(finished: Path) -> None:
    bundle = finished / "models" / "stripes" / "1"
    calibration = load_bundle(bundle).manifest.calibration
    sentence = str(false_flag_rate(calibration.n, calibration.alpha))
    assert sentence in " ".join((finished / "output.txt").read_text(encoding="utf-8").split())
    shown = CliRunner().invoke(app, ["inspect", str(bundle)], env={"COLUMNS": "300"})
    assert sentence in without_table_borders(shown.output)


def test_an_existing_version_is_not_replaced_without_overwrite(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "export",
        str(finished / "run"),
        "--data",
        str(finished / "data"),
        "--models",
        str(finished / "models"),
    ]
    monkeypatch.setattr("sys.argv", ["ood-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "--overwrite" in capsys.readouterr().err


def test_another_version_is_exported_without_training(finished: Path) -> None:
    folders = ["--data", str(finished / "data"), "--models", str(finished / "models")]
    done = CliRunner().invoke(app, ["export", str(finished / "run"), *folders, "--version", "2"])
    assert done.exit_code == 0, done.output
    first, second = (load_bundle(finished / "models" / "stripes" / version) for version in ("1", "2"))
    assert second.manifest.version == "2"
    assert second.manifest.training == first.manifest.training


def test_an_existing_bundle_is_reported_before_training(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--data", str(finished / "data"), "--models", str(finished / "models"), "--run", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["ood-train", "run", str(finished / "recipe.yaml"), *folders])
    with pytest.raises(SystemExit):
        main()
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"exists\. Give the new bundle another version, for example --version [23], or", error)
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "absent.yaml"], "absent.yaml"),
        (["evaluate", "no-such-run"], "no-such-run"),
        (["inspect", "no-such-bundle"], "no-such-bundle"),
    ],
)
def test_errors_are_one_readable_message_and_exit_code_one(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ood-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"})
    for command in ("fit", "calibrate", "evaluate", "export", "run", "inspect", "paper", "wrap"):
        assert command in shown.output


def test_training_on_two_devices_makes_one_run(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    options = ["--devices", "2", "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "training", "fit", str(tmp_path / "recipe.yaml"), "trainer.accelerator=cpu", *options],
        env=os.environ | {"OOD_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert run.recipe.trainer.devices == 2
    assert {run.record(stage).epochs for stage in ("baseline", "oe")} == {2}
    assert load_model(run, "oe", 2) is not None


def test_the_bundle_shows_the_evidence_of_positions_for_the_class(finished: Path) -> None:
    bundle = load_bundle(finished / "models" / "stripes" / "1")
    assert bundle.manifest.evidence is not None
    assert len(bundle.manifest.evidence.bias) == 2
    outputs = run_graph(bundle.model_path, StoredArray(checkers(6, seed=9)), outputs=["evidence", "max_logit"])
    assert outputs["evidence"].shape == (6, 2, 2)
