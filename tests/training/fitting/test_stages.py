"""Fitting: stages learn, finished ones are kept, and interrupted ones resume to the same weights."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from tests.training.support.datasets_on_disk import tiny_recipe, write_tiny_data
from tests.training.support.interrupted_inputs import InterruptedInputs
from training.architectures.small_conv import SmallConvNet
from training.data import Batch, DataLocations, Examples, StoredArray, load_in_distribution, load_set, open_reader
from training.errors import DataError, DivergedError, RecipeError, RunError
from training.export.provenance import describe_training, save_fingerprints
from training.fitting.stages import fit_stages
from training.fitting.weights import initial_model, load_model
from training.objectives.cross_entropy import CrossEntropy
from training.objectives.objective import Forward, Loss, outliers_of
from training.recipe import parse_recipe
from training.run import Run
from training.steps import start_run

Weights = dict[str, torch.Tensor]


class Data(NamedTuple):
    train: Examples
    calibration: Examples
    outliers: Examples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = write_tiny_data(tmp_path_factory.mktemp("data"))
    recipe, locations = parse_recipe(tiny_recipe(), "test"), DataLocations(data_dir=root, cache_dir=root / "cache")
    reader = open_reader(recipe, locations, root / "tokenizer.json")
    assert recipe.outliers is not None
    in_dist = load_in_distribution(recipe, reader)
    outliers = load_set(recipe.outliers.train, reader, in_dist.train, name="outliers", seed=1)
    return Data(in_dist.train, in_dist.calibration, outliers)


def start(path: Path, **changes: Any) -> Run:
    return Run.create(path, parse_recipe(tiny_recipe(**changes), "test", allow_code=True), overwrite=False)


def run_fit(run: Run, data: Data, *, resume: bool = False) -> list[str]:
    """The lines that fitting the run announces."""
    announced: list[str] = []
    fit_stages(run, data.train, data.outliers, resume=resume, announce=announced.append)
    return announced


def weights(run: Run, stage: str) -> Weights:
    return load_model(run, stage, 2).state_dict()


def images(examples: Examples) -> torch.Tensor:
    return torch.from_numpy(examples.x[np.arange(len(examples))])


def accuracy(run: Run, stage: str, data: Data) -> float:
    with torch.inference_mode():
        logits = load_model(run, stage, 2)(images(data.calibration)).logits
    assert data.calibration.y is not None
    return float((logits.argmax(dim=1) == torch.from_numpy(data.calibration.y)).float().mean())


def test_both_stages_learn_and_outlier_exposure_lowers_confidence_on_outliers(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run")
    run_fit(run, data)
    outliers = images(data.outliers)
    confidence = {}
    for stage in run.recipe.stages:
        assert accuracy(run, stage, data) > 0.9
        with torch.inference_mode():
            confidence[stage] = float(load_model(run, stage, 2)(outliers).logits.softmax(dim=1).amax(dim=1).mean())
    assert confidence["oe"] < confidence["baseline"]


class RecordingCrossEntropy(CrossEntropy):
    """Cross entropy that requires outliers and records its batches."""

    uses_outliers = True
    batches: ClassVar[list[Batch]] = []

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        self.batches.append(batch)
        return super().__call__(forward, batch)


class RecordingNetwork(SmallConvNet):
    """A network that records the images of its initialisation."""

    images: ClassVar[list[torch.Tensor]] = []

    def initialise(self, images: torch.Tensor) -> None:
        self.images.append(images)


def test_a_network_is_initialised_with_images_of_all_classes_of_a_sorted_set(tmp_path: Path) -> None:
    y = np.repeat(np.arange(5), 1000)
    x = np.broadcast_to(y.astype(np.uint8)[:, None, None, None], (len(y), 16, 16, 3))
    examples = Examples(StoredArray(x), y, tuple("abcde"), "train", "here", "ab" * 32)
    run = start(tmp_path / "run", architecture={"name": f"{__name__}.RecordingNetwork", "width": 4})
    RecordingNetwork.images.clear()
    initial_model(run, run.recipe.stages["baseline"], examples)
    (images,) = RecordingNetwork.images
    values, counts = images[:, 0, 0, 0].unique(return_counts=True)
    assert len(values) == 5
    assert counts.tolist() == [400] * 5


@pytest.mark.parametrize(("jitter", "unchanged"), [(None, 1), (1.0, 0)])
def test_outliers_get_the_stages_outlier_augmentation_if_it_has_one(
    tmp_path: Path, data: Data, jitter: float | None, unchanged: int
) -> None:
    no_augmentation = {"pad": 0, "flip": False}
    stage = {
        "objective": {"name": f"{__name__}.RecordingCrossEntropy"},
        "epochs": 1,
        "batch_size": 16,
        "augmentation": no_augmentation,
    }
    if jitter is not None:
        stage["outlier_augmentation"] = {**no_augmentation, "jitter": jitter}
    stored = {image.numpy().tobytes() for examples in (data.train, data.outliers) for image in images(examples)}
    RecordingCrossEntropy.batches.clear()
    run_fit(start(tmp_path / "run", stages={"baseline": stage}, export={"stage": "baseline"}), data)

    def share_stored(batches: list[torch.Tensor]) -> float:
        return float(np.mean([image.numpy().tobytes() in stored for image in torch.cat(batches)]))

    assert share_stored([batch.x_in for batch in RecordingCrossEntropy.batches]) == 1
    assert share_stored([outliers_of(batch) for batch in RecordingCrossEntropy.batches]) == unchanged


@pytest.mark.parametrize("pool", [1, 4, 1.5])
def test_a_larger_pool_of_outliers_does_not_change_how_many_are_used(tmp_path: Path, data: Data, pool: float) -> None:
    stage = {
        "objective": {"name": f"{__name__}.RecordingCrossEntropy"},
        "epochs": 1,
        "batch_size": 16,
        "outlier_ratio": 0.5,
        "outlier_pool": pool,
    }
    RecordingCrossEntropy.batches.clear()
    run_fit(start(tmp_path / "run", stages={"baseline": stage}, export={"stage": "baseline"}), data)
    assert {len(outliers_of(batch)) for batch in RecordingCrossEntropy.batches} == {8}


class SteepCrossEntropy(CrossEntropy):
    """Cross entropy whose gradients are a million times as long."""

    def __call__(self, forward: Forward, batch: Batch) -> Loss:
        loss = super().__call__(forward, batch)
        return loss._replace(value=1e6 * loss.value)


def test_a_step_is_no_longer_than_the_gradient_norm_allows(tmp_path: Path, data: Data) -> None:
    def fitted(rate: float, norm: float | None) -> torch.Tensor:
        stage = {
            "objective": {"name": f"{__name__}.SteepCrossEntropy"},
            "epochs": 1,
            # One step.
            "batch_size": len(data.train),
            "learning_rate": rate,
            "momentum": 0,
            "weight_decay": 0,
            "schedule": "constant",
            "gradient_norm": norm,
        }
        run = start(tmp_path / f"{rate}-{norm}", stages={"baseline": stage}, export={"stage": "baseline"})
        run_fit(run, data)
        return torch.cat([weight.double().flatten() for weight in load_model(run, "baseline", 2).parameters()])

    initial = fitted(1e-15, 1.0)
    for norm in (0.5, 2.0):
        assert float((fitted(0.1, norm) - initial).norm()) == pytest.approx(0.1 * norm, rel=1e-3)
    assert float((fitted(1e-3, None) - initial).norm()) > 1


@pytest.mark.parametrize(
    ("architecture", "optimizer"),
    [
        ({"name": "all_conv", "width": 4, "dropout": 0.3}, {}),
        ({"name": "whitened_conv", "widths": [4, 4, 8], "activation": "gelu"}, {"muon": {}, "norm_bias_rate": 64}),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_weights_as_an_uninterrupted_one(
    tmp_path: Path, data: Data, architecture: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    stages = {name: {**stage, **optimizer} for name, stage in tiny_recipe()["stages"].items()}
    options = {"architecture": architecture, "stages": stages}
    uninterrupted, interrupted = start(tmp_path / "one", **options), start(tmp_path / "other", **options)
    run_fit(uninterrupted, data)
    interrupt_in_second_epoch(interrupted, data)
    announced = run_fit(interrupted, data, resume=True)
    assert announced[0].startswith("stage baseline: 2 epochs")
    resumed = weights(interrupted, "oe")
    for name, value in weights(uninterrupted, "oe").items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_an_interrupted_stage_is_not_restarted_without_resume(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run")
    interrupt_in_second_epoch(run, data)
    with pytest.raises(RunError, match="--resume"):
        run_fit(run, data)


def interrupt_in_second_epoch(run: Run, data: Data) -> None:
    """Interrupt the second epoch of the first stage as Ctrl-C does; the first epoch's checkpoint exists."""
    train = replace(data.train, x=InterruptedInputs(data.train.x, reads_left=14))
    with pytest.raises(SystemExit):
        fit_stages(run, train, data.outliers, resume=False, announce=lambda _: None)
    assert run.checkpoint_path("baseline").exists()
    assert not run.record_path("baseline").exists()


def test_the_log_of_the_epochs_before_an_interruption_is_kept(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run")
    interrupt_in_second_epoch(run, data)
    run_fit(run, data, resume=True)
    epochs = []
    for log in sorted(run.stage_path("baseline").glob("csv-*/metrics.csv")):
        with log.open(newline="") as file:
            epochs.append({row["epoch"] for row in csv.DictReader(file)})
    assert epochs[0] >= {"0"}
    assert epochs[1] == {"1"}


def test_the_progress_bar_shows_the_remaining_time_of_the_stage(
    tmp_path: Path, data: Data, capfd: pytest.CaptureFixture[str]
) -> None:
    run_fit(start(tmp_path / "run"), data)
    bars = "".join(capfd.readouterr())
    ends = [bar for bar in re.split(r"[\r\n]", bars) if "left=" in bar]
    assert re.search(r"Epoch 0: .*left=0:\d\d:\d\d", bars)
    assert ends[-1].startswith("Epoch 1:")
    assert "left=0:00:00" in ends[-1]
    assert "v_num" not in bars


def test_a_run_of_another_recipe_is_not_overwritten_without_overwrite(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(RunError, match=r"different recipe \(seed changed\).*--overwrite"):
        start(tmp_path / "run", seed=2)


def test_the_export_section_can_change_without_training_again(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run")
    run_fit(run, data)
    run.report_path.mkdir()
    run.calibration_path.mkdir()
    changed = start(tmp_path / "run", export={"stage": "oe", "alpha": 0.2})
    assert Run.open(tmp_path / "run").recipe.export.alpha == 0.2
    assert run_fit(changed, data) == ["stage baseline: finished earlier, kept", "stage oe: finished earlier, kept"]
    # Calibration and report depend on the changed alpha.
    assert not run.report_path.exists()
    assert not run.calibration_path.exists()


def test_a_stage_can_be_added_to_a_trained_run_and_a_trained_stage_cannot_change(tmp_path: Path, data: Data) -> None:
    stages = tiny_recipe()["stages"]
    run_fit(start(tmp_path / "run"), data)
    longer = stages | {"more": stages["oe"] | {"start_from": "oe", "epochs": 1}}
    announced = run_fit(start(tmp_path / "run", stages=longer), data)
    assert announced[:2] == ["stage baseline: finished earlier, kept", "stage oe: finished earlier, kept"]
    assert announced[2].startswith("stage more: 1 epochs")
    changed = stages | {"oe": stages["oe"] | {"epochs": 3}}
    with pytest.raises(RunError, match=r"different recipe \(stages\.oe, stages\.more changed\)"):
        start(tmp_path / "run", stages=changed)


def test_a_tokenizer_and_a_backbone_that_no_stage_was_trained_with_are_made_again(tmp_path: Path) -> None:
    recipe = parse_recipe(tiny_recipe(), "test")
    run = start_run(recipe, tmp_path / "run", overwrite=False)
    files = [run.tokenizer_path, run.backbone_path, run.backbone_folder / "config.json"]
    run.backbone_folder.mkdir()
    for file in files:
        file.touch()
    run.checkpoint_path("baseline").parent.mkdir(parents=True)
    run.checkpoint_path("baseline").touch()
    start_run(recipe, tmp_path / "run", overwrite=False)
    assert all(file.exists() for file in files)
    run.checkpoint_path("baseline").unlink()
    start_run(recipe, tmp_path / "run", overwrite=False)
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    ("ratio", "shape", "message"),
    [
        (0.5, (16, 16, 3), "each image with a different outlier, the stage's outlier_ratio is 0.5"),
        (1, (1, 24), r"mixes images \[H, W, C\], the network's inputs are \[1, 24\]"),
        (1, (24,), r"mixes images \[H, W, C\], the network's inputs are \[24\]"),
    ],
)
def test_mixtures_without_images_or_enough_outliers_are_refused_before_any_stage(
    ratio: float, shape: tuple[int, ...], message: str, tmp_path: Path, data: Data
) -> None:
    stages = tiny_recipe()["stages"]
    stages["oe"] = {**stages["oe"], "objective": {"name": "mix_oe"}, "outlier_ratio": ratio}
    inputs = StoredArray(np.zeros((len(data.train), *shape), dtype=np.uint8))
    run = start(tmp_path / "run", stages=stages)
    with pytest.raises(RecipeError, match=rf"stages\.oe\.objective: 'mix_oe'.*{message}"):
        run_fit(run, data._replace(train=replace(data.train, x=inputs)))
    assert not run.stages_path.exists()


def test_an_overwritten_run_is_deleted(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run")
    run_fit(run, data)
    run.report_path.mkdir()
    overwritten = Run.create(tmp_path / "run", run.recipe, overwrite=True)
    assert [path.name for path in overwritten.path.iterdir() if path.is_dir()] == []


def test_a_loss_that_is_not_finite_stops_the_run_with_a_remedy(tmp_path: Path, data: Data) -> None:
    stages = {
        "baseline": {"objective": {"name": "cross_entropy"}, "epochs": 3, "batch_size": 16, "learning_rate": 1e30}
    }
    run = start(tmp_path / "run", stages=stages, export={"stage": "baseline"})
    with pytest.raises(DivergedError, match="learning_rate"):
        run_fit(run, data)
    assert not run.record_path("baseline").exists()


def test_a_stage_may_start_from_the_average_of_earlier_ones(tmp_path: Path, data: Data) -> None:
    no_change = {"objective": {"name": "cross_entropy"}, "epochs": 1, "batch_size": 16, "learning_rate": 1e-12}
    stages = {**tiny_recipe()["stages"], "mean": {**no_change, "start_from": ["baseline", "oe"]}}
    run = start(tmp_path / "run", stages=stages, export={"stage": "mean"})
    save_fingerprints(run, [data.train])
    run_fit(run, data)
    first, second, mean = (dict(load_model(run, stage, 2).named_parameters()) for stage in stages)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, value in mean.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, msg=name)
    assert accuracy(run, "mean", data) > 0.9
    seconds = sum(run.record(stage).seconds for stage in stages)
    assert describe_training(run, "mean").seconds == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"objective": {"name": "outlier_exposure"}}, "stage 'last' needs outliers"),
        ({"objective": {"name": "confidence"}}, "stages.last.objective: 'confidence' trains a confidence branch"),
        (
            {"objective": {"name": "cross_entropy"}, "outlier_augmentation": {"jitter": 1}},
            "stages.last.outlier_augmentation: 'cross_entropy' is shown no outliers",
        ),
        (
            {"objective": {"name": "cross_entropy"}, "outlier_pool": 2},
            "stages.last.outlier_pool: 'cross_entropy' does not train a classifier with outliers",
        ),
    ],
)
def test_a_stage_that_does_not_fit_the_recipe_is_refused_before_earlier_stages_train(
    tmp_path: Path, data: Data, last: dict[str, Any], message: str
) -> None:
    stages = {"first": {"objective": {"name": "cross_entropy"}, "epochs": 1}, "last": {**last, "epochs": 1}}
    run = start(tmp_path / "run", stages=stages, outliers=None, export={"stage": "last"})
    with pytest.raises((DataError, RecipeError), match=re.escape(message)):
        fit_stages(run, data.train, None, resume=False, announce=lambda _: None)
    assert not run.checkpoint_path("first").exists()


def test_mixed_precision_learns_as_well(tmp_path: Path, data: Data) -> None:
    run = start(tmp_path / "run", trainer={"precision": "bf16-mixed"})
    run_fit(run, data)
    assert accuracy(run, "oe", data) > 0.9
