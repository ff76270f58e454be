"""Fit: stages learn, are kept, and continue after an interruption as if nothing had happened."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.datasets_on_disk import tiny_recipe, write_tiny_data
from training.data import DataLocations, ImageArray, TrainingData, load_training_data
from training.errors import DataError, DivergedError, OverlapError, RunError
from training.fit import fit, load_classifier
from training.recipe import parse_recipe
from training.run import Run

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    root = write_tiny_data(tmp_path_factory.mktemp("data"))
    return load_training_data(parse_recipe(tiny_recipe(), "test"), DataLocations(root=root, cache=root / "cache"))


def start(path: Path, **changes: Any) -> Run:
    return Run.create(path, parse_recipe(tiny_recipe(**changes), "test"), overwrite=False)


def run_fit(run: Run, data: TrainingData, *, resume: bool = False) -> list[str]:
    said: list[str] = []
    fit(run, data.train, data.outliers, resume=resume, announce=said.append)
    return said


def weights(run: Run, stage: str) -> Weights:
    return load_classifier(run, stage, 2).state_dict()


def accuracy(run: Run, stage: str, data: TrainingData) -> float:
    rows = torch.arange(len(data.calibration)).numpy()
    with torch.inference_mode():
        logits = load_classifier(run, stage, 2)(torch.from_numpy(data.calibration.x[rows]))
    assert data.calibration.y is not None
    return float((logits.argmax(dim=1) == torch.from_numpy(data.calibration.y)).float().mean())


def test_both_stages_learn_and_outlier_exposure_lowers_confidence_on_outliers(
    tmp_path: Path, data: TrainingData
) -> None:
    run = start(tmp_path / "run")
    run_fit(run, data)
    assert data.outliers is not None
    outliers = torch.from_numpy(data.outliers.x[torch.arange(len(data.outliers)).numpy()])
    confidence = {}
    for stage in run.recipe.stages:
        assert accuracy(run, stage, data) > 0.9
        with torch.inference_mode():
            confidence[stage] = float(load_classifier(run, stage, 2)(outliers).softmax(dim=1).amax(dim=1).mean())
    assert confidence["oe"] < confidence["baseline"]


def test_an_interrupted_run_resumes_to_the_same_weights_as_an_uninterrupted_one(
    tmp_path: Path, data: TrainingData
) -> None:
    options: dict[str, Any] = {"architecture": {"name": "wide_resnet", "depth": 10, "widen_factor": 1, "dropout": 0.3}}
    whole, broken = start(tmp_path / "whole", **options), start(tmp_path / "broken", **options)
    run_fit(whole, data)
    interrupt_in_second_epoch(broken, data)
    said = run_fit(broken, data, resume=True)
    assert said[0].startswith("stage baseline: 2 epochs")
    for name, value in weights(whole, "oe").items():
        torch.testing.assert_close(weights(broken, "oe")[name], value, rtol=0, atol=0, msg=name)


def test_a_half_done_stage_is_not_restarted_by_accident(tmp_path: Path, data: TrainingData) -> None:
    run = start(tmp_path / "run")
    interrupt_in_second_epoch(run, data)
    with pytest.raises(RunError, match="--resume"):
        run_fit(run, data)


def interrupt_in_second_epoch(run: Run, data: TrainingData) -> None:
    """Press Ctrl-C in the second epoch of the first stage: on disk is the checkpoint of the first epoch."""
    train = replace(data.train, x=InterruptedImages(data.train.x, reads_left=14))
    with pytest.raises(SystemExit):
        fit(run, train, data.outliers, resume=False, announce=lambda _: None)
    assert run.checkpoint_path("baseline").exists()
    assert not run.record_path("baseline").exists()


class InterruptedImages:
    """An image array whose reader is interrupted after some reads; an epoch here takes ten."""

    in_memory = True

    def __init__(self, images: ImageArray, reads_left: int) -> None:
        self._images = images
        self._reads_left = reads_left
        self.shape = images.shape

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise KeyboardInterrupt
        return self._images[rows]


def test_a_run_of_another_recipe_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(RunError, match=r"different recipe.*--overwrite"):
        start(tmp_path / "run", seed=2)


def test_a_loss_that_is_not_finite_stops_the_run_with_a_remedy(tmp_path: Path, data: TrainingData) -> None:
    stages = {
        "baseline": {"objective": {"name": "cross_entropy"}, "epochs": 3, "batch_size": 16, "learning_rate": 1e30}
    }
    run = start(tmp_path / "run", stages=stages, export={"stage": "baseline"})
    with pytest.raises(DivergedError, match="learning_rate"):
        run_fit(run, data)
    assert not run.record_path("baseline").exists()


def test_a_stage_that_needs_outliers_and_has_none_is_refused_before_it_trains(
    tmp_path: Path, data: TrainingData
) -> None:
    stages = {"oe": {"objective": {"name": "outlier_exposure"}, "epochs": 1}}
    run = start(tmp_path / "run", stages=stages, outliers=None)
    with pytest.raises(DataError, match="needs outliers"):
        fit(run, data.train, None, resume=False, announce=lambda _: None)


def test_outliers_that_are_in_distribution_images_are_refused_or_removed(tmp_path: Path) -> None:
    root = write_tiny_data(tmp_path)
    places = DataLocations(root=root, cache=root / "cache")
    raw = tiny_recipe(outliers={"train": {"path": "train.parquet"}})
    with pytest.raises(OverlapError, match="every outlier"):
        load_training_data(parse_recipe(raw, "test"), places)


def test_mixed_precision_learns_as_well(tmp_path: Path, data: TrainingData) -> None:
    run = start(tmp_path / "run", trainer={"precision": "bf16-mixed"})
    run_fit(run, data)
    assert accuracy(run, "oe", data) > 0.9
