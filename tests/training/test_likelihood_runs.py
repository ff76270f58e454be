"""Densities and language models, from data to a bundle: no labels, scores in bits, more bits for outliers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bundle import load_bundle
from tests.training.support.datasets_on_disk import stripes, tiny_recipe, write_parquet, write_tiny_data
from tests.training.support.texts_on_disk import sentences, tiny_text_recipe, write_texts, write_tiny_texts
from training import steps
from training.data import DataLocations
from training.errors import RecipeError
from training.evaluation import Report
from training.recipe import parse_recipe
from training.run import Run

SCHEDULE = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "optimizer": "adam", "weight_decay": 0}


def run_all_steps(recipe: dict[str, Any], root: Path, path: Path) -> Run:
    locations = DataLocations(data_dir=root, cache_dir=root / "cache")
    run = Run.create(path / "run", parse_recipe(recipe, "test"), overwrite=False)
    steps.fit_run(run, locations, resume=False)
    steps.calibrate_run(run, locations)
    steps.evaluate_run(run, locations)
    steps.export_run(run, locations, path / "models", overwrite=False)
    return run


def report_of(run: Run) -> Report:
    return Report.from_json((run.report_path / "report.json").read_text(encoding="utf-8"))


def bits(report: Report) -> dict[tuple[str, str], float]:
    return {(row.stage, row.set): row.bits for row in report.bits}


def test_a_density_learns_without_labels_and_the_margin_loss_makes_outliers_less_likely(tmp_path: Path) -> None:
    root = write_tiny_data(tmp_path / "data")
    # Without labels.
    for name, n, seed in (("train", 120, 1), ("test", 40, 2)):
        write_parquet(root / f"{name}.parquet", stripes(n, seed)[0])
    margin = {"name": "likelihood_margin"}
    recipe = tiny_recipe(
        task="density",
        architecture={"name": "pixelcnn", "filters": 4, "resnets": 1, "levels": 1, "mixtures": 2, "dropout": 0.0},
        in_distribution={"train": {"path": "train.parquet"}, "test": {"path": "test.parquet"}, "calibration_size": 40},
        stages={
            "baseline": {"objective": {"name": "maximum_likelihood"}, **SCHEDULE},
            "oe": {"objective": margin, "start_from": "baseline", "outlier_ratio": 1, **SCHEDULE},
        },
        export={"stage": "oe", "scores": ["bpp"], "default_score": "bpp", "alpha": 0.05},
    )
    run = run_all_steps(recipe, root, tmp_path)
    mean_bits = bits(report_of(run))
    assert mean_bits["oe", "checkers"] - mean_bits["oe", "in-distribution"] > 0.3
    bundle = load_bundle(tmp_path / "models" / "stripes" / "1")
    assert (bundle.manifest.task, bundle.manifest.labels) == ("density", [])
    assert bundle.manifest.evaluation is not None
    assert bundle.manifest.evaluation.error_percent is None
    assert bundle.manifest.likelihood is not None
    session = onnxruntime.InferenceSession(bundle.model_path, providers=["CPUExecutionProvider"])
    bpp, parts = session.run(["bpp", "bits"], {"images": stripes(3, 9)[0]})
    assert parts.shape == (3, 16, 16)
    # `bpp` is per colour channel, `bits` per pixel of three channels.
    assert np.allclose(parts.mean(axis=(1, 2)) / 3, bpp, rtol=1e-5)


@pytest.mark.parametrize(("unit", "score"), [("word", "bpw"), ("character", "bpc")])
def test_a_language_model_learns_and_outlier_exposure_gives_outliers_more_bits(
    tmp_path: Path, unit: str, score: str
) -> None:
    root = write_tiny_texts(tmp_path / "data")
    for name, n, seed in (("train", 150, 1), ("test", 90, 2)):
        write_texts(root / f"{name}.parquet", sentences("kitchen", n, seed))
    oe = {"name": "outlier_exposure", "weight": 1.0}
    config = {"kind": "text", "unit": unit, "normalize": "penn-treebank", "max_tokens": 80, "min_frequency": 1}
    recipe = tiny_text_recipe(
        task="language-model",
        input=config,
        architecture={"name": "qrnn", "embedding": 16, "hidden": 16, "layers": 2, "dropout": 0.0},
        likelihood={"window": 8},
        in_distribution={"train": {"path": "train.parquet"}, "test": {"path": "test.parquet"}, "calibration_size": 40},
        stages={
            "baseline": {"objective": {"name": "maximum_likelihood"}, "group_by_length": True, **SCHEDULE},
            "oe": {"objective": oe, "start_from": "baseline", "group_by_length": True, **SCHEDULE},
        },
        export={
            "stage": "oe",
            "scores": [score, "kl_uniform"],
            "default_score": score,
            "alpha": 0.05,
            "max_tokens": 500,
        },
    )
    run = run_all_steps(recipe, root, tmp_path)
    report = report_of(run)
    mean_bits = bits(report)
    # Outlier Exposure trains this quantity.
    auroc = {stage: report.find("unseen", stage, "kl_uniform").auroc.mean for stage in ("baseline", "oe")}
    assert auroc["oe"] > auroc["baseline"] + 20
    by_segment = report.by_segment
    assert by_segment is not None
    assert by_segment.in_dist_size >= 5
    # A segment holds several texts, which together are more certain than one.
    of_segments = by_segment.find("unseen", "oe", "kl_uniform").auroc.mean
    assert of_segments >= report.find("unseen", "oe", "kl_uniform").auroc.mean
    assert "## By segment" in (run.report_path / "report.md").read_text(encoding="utf-8")
    assert mean_bits["baseline", "in-distribution"] < mean_bits["baseline", "unseen"]
    gap = {stage: mean_bits[stage, "unseen"] - mean_bits[stage, "in-distribution"] for stage in ("baseline", "oe")}
    assert gap["oe"] > gap["baseline"]
    bundle = load_bundle(tmp_path / "models" / "topics" / "1")
    assert bundle.text_encoder is not None
    # The model accepts any length, so it is served with more tokens than in training.
    assert bundle.text_encoder.max_tokens == 500
    assert bundle.manifest.likelihood is not None
    assert (bundle.manifest.likelihood.per, bundle.manifest.likelihood.counts_end) == (unit, True)
    assert list(bundle.calibrations) == [score, "kl_uniform"]
    assert bundle.manifest.parity is not None
    assert set(bundle.manifest.parity.max_difference) == {score, "kl_uniform"}


def test_a_density_has_no_other_score_than_its_bits(tmp_path: Path) -> None:
    root = write_tiny_data(tmp_path / "data")
    recipe = tiny_recipe(
        task="density",
        architecture={"name": "pixelcnn", "filters": 2, "resnets": 1, "levels": 1, "mixtures": 1},
        stages={"baseline": {"objective": {"name": "maximum_likelihood"}, **SCHEDULE, "epochs": 1}},
        export={"stage": "baseline", "scores": ["bpp", "msp"], "default_score": "bpp"},
    )
    locations = DataLocations(data_dir=root, cache_dir=root / "cache")
    run = Run.create(tmp_path / "run", parse_recipe(recipe, "test"), overwrite=False)
    steps.fit_run(run, locations, resume=False)
    with pytest.raises(RecipeError, match=r"export.scores.*msp cannot be computed from this model. Choose among bpp"):
        steps.calibrate_run(run, locations)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"task": "language-model"}, "task"),
        ({"task": "density", "confidence_branch": True}, "confidence_branch"),
        ({"task": "density", "export": {"stage": "oe", "mirror": True}}, "export.mirror"),
        ({"export": {"stage": "oe", "max_tokens": 9}}, "export.max_tokens"),
    ],
)
def test_options_that_do_not_fit_the_task_are_refused_with_their_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        parse_recipe(tiny_recipe(**changes), "test")
