"""The shipped recipes: each trains on files in the layout that it describes, and gives the scores that it exports."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from bundle import ImageInput
from tests.training.support.datasets_on_disk import png
from training.data import DataLocations, load_in_distribution, load_set, open_reader, without_overlap
from training.fitting.stages import fit_stages
from training.fitting.weights import load_model
from training.models.build import build_model, scored_model
from training.models.classifier import Classifier
from training.recipe import Recipe, Source, Synthetic, load_recipe
from training.run import Run
from training.scoring.features import load_stage_statistics, save_stage_statistics

RECIPES = sorted(Path("training/recipes").glob("*.yaml"))
NETWORK_RECIPES = [path for path in RECIPES if load_recipe(path).pretrained is None]
"""Those that train a network of inputs. `tests/training/backbones` trains classifiers of a backbone's features."""
TEXT_RECIPES = [path for path in NETWORK_RECIPES if not isinstance(load_recipe(path).input, ImageInput)]
IMAGE_RECIPES = [path for path in NETWORK_RECIPES if isinstance(load_recipe(path).input, ImageInput)]

WORDS = ["bread", "ship", "the", "a", "market", "rose", "N", "company", "said", "it"]
_ROWS = 44
"""Enough to hold out 20 calibration examples, the fewest that a recipe may ask for."""


NARROW = {
    "pixelcnn": ["architecture.filters=8"],
    "qrnn": ["architecture.hidden=64"],
    "wide_resnet": ["architecture.widen_factor=1"],
    "whitened_conv": ["architecture.widths=[8,16,16]"],
}
"""Overrides by architecture. At full width, most of the time of these tests would be spent in convolutions."""


def shortened(path: Path) -> Recipe:
    """The recipe with one epoch of two examples per step, small sets and a narrow network of the same depth."""
    recipe = load_recipe(path)
    changes = ["in_distribution.calibration_size=20", "trainer.precision=32-true"]
    for stage in recipe.stages:
        changes += [f"stages.{stage}.epochs=1", f"stages.{stage}.batch_size=2"]
    sets = {
        f"evaluation.{part}.{name}": config
        for part in ("ood", "validation")
        for name, config in getattr(recipe.evaluation, part).items()
    }
    if recipe.outliers is not None:
        sets["outliers.train"] = recipe.outliers.train
    changes += [f"{key}.size=12" for key, config in sets.items() if isinstance(config, Synthetic)]
    changes += NARROW.get(recipe.architecture.name, [])
    changes += [
        f"stages.{name}.objective.width=8"
        for name, stage in recipe.stages.items()
        if stage.objective.name == "joint_confidence"
    ]
    return load_recipe(path, changes)


def sources(recipe: Recipe) -> list[Source]:
    """Every data set that the recipe reads."""
    sets = [recipe.in_distribution.train, recipe.in_distribution.test, *recipe.evaluation.sets.values()]
    sets += [] if recipe.outliers is None else [recipe.outliers.train]
    return [config for config in sets if isinstance(config, Source)]


def named_labels(recipe: Recipe, path: str) -> set[str]:
    """The classes that the recipe's sources of `path` select or exclude."""
    of_path = [source for source in sources(recipe) if source.path == path]
    return {label for source in of_path for label in (*source.only_labels, *source.exclude_labels)}


def write(source: Source, root: Path, size: int, seed: int, named: set[str]) -> None:
    """Write random pictures with the path, format and columns of `source`; half are of the classes `named`."""
    x = np.random.default_rng(seed).integers(0, 256, (_ROWS, size, size, 3), dtype=np.uint8)
    labels = ["one", "other", *sorted(named)]
    y = np.arange(_ROWS) % 2
    y[_ROWS // 2 :] = np.arange(_ROWS - _ROWS // 2) % len(labels)
    if source.format == "imagefolder":
        for row, image in enumerate(x):
            folder = root / source.path / (labels[y[row]] if source.label else "pictures")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.png").write_bytes(png(image))
        return
    columns: dict[str, Any] = {source.image: [{"bytes": png(image), "path": None} for image in x]}
    features: dict[str, Any] = {source.image: datasets.Image()}
    if source.label is not None:
        columns[source.label] = y.tolist()
        features[source.label] = datasets.ClassLabel(names=labels)
    (root / source.path).parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(root / source.path)


@pytest.mark.parametrize("path", IMAGE_RECIPES, ids=lambda path: path.stem)
def test_every_image_recipe_trains_on_files_in_its_layout(path: Path, tmp_path: Path) -> None:
    recipe = shortened(path)
    assert isinstance(recipe.input, ImageInput)
    for seed, source in enumerate(sources(recipe)):
        write(source, tmp_path / "data", recipe.input.height, seed, named_labels(recipe, source.path))
    locations = DataLocations(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    in_dist = load_in_distribution(recipe, reader)
    for name, config in recipe.evaluation.sets.items():
        assert 0 < len(load_set(config, reader, in_dist.test, name=name, seed=1, spec=recipe.input)) <= _ROWS
    assert recipe.outliers is not None
    outliers = load_set(recipe.outliers.train, reader, in_dist.train, name="outliers", seed=1, spec=recipe.input)
    outliers = without_overlap(outliers, in_dist, reader, recipe.outliers)
    run = Run.create(tmp_path / "run", recipe, overwrite=False)
    fit_stages(run, in_dist.train.rows(np.arange(4)), outliers, resume=False, announce=lambda _: None)
    stage = recipe.export.stage
    classifier = load_model(run, stage, 2)
    if isinstance(classifier, Classifier):
        save_stage_statistics(run, stage, classifier, in_dist.train)
    model = scored_model(recipe, classifier, load_stage_statistics(run, stage))
    with torch.inference_mode():
        values = model.eval()(torch.from_numpy(in_dist.test.x[np.arange(2)]))
    scores = dict(zip(model.output_names, values, strict=True))
    assert set(recipe.export.scores) <= set(scores)
    assert all(torch.isfinite(scores[name]).all() for name in recipe.export.scores)


def write_texts(source: Source, root: Path, seed: int, named: set[str]) -> None:
    """Write random sentences with the paths and columns of `source`; some are of the classes `named`."""
    generator = np.random.default_rng(seed)
    for path in (source.path, *source.also):
        texts = [" ".join(generator.choice(WORDS, generator.integers(2, 12))) for _ in range(_ROWS)]
        labels = ["one", "other", *sorted(named)]
        y = np.arange(_ROWS) % 2
        y[_ROWS // 2 :] = np.arange(_ROWS - _ROWS // 2) % len(labels)
        columns: dict[str, Any] = {source.text: texts}
        features: dict[str, Any] = {source.text: datasets.Value("string")}
        if source.label is not None:
            columns[source.label] = y.tolist()
            features[source.label] = datasets.ClassLabel(names=labels)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(root / path)


@pytest.mark.parametrize("path", TEXT_RECIPES, ids=lambda path: path.stem)
def test_every_text_recipe_trains_on_files_in_its_layout(path: Path, tmp_path: Path) -> None:
    recipe = shortened(path)
    for seed, source in enumerate(sources(recipe)):
        write_texts(source, tmp_path / "data", seed, named_labels(recipe, source.path))
    reader = open_reader(recipe, DataLocations(data_dir=tmp_path / "data"), tmp_path / "tokenizer.json")
    in_dist = load_in_distribution(recipe, reader)
    for name, config in recipe.evaluation.sets.items():
        assert 0 < len(load_set(config, reader, in_dist.test, name=name, seed=1)) <= _ROWS
    assert recipe.outliers is not None
    outliers = load_set(recipe.outliers.train, reader, in_dist.train, name="outliers", seed=1, spec=recipe.input)
    run = Run.create(tmp_path / "run", recipe, overwrite=False)
    (tmp_path / "tokenizer.json").rename(run.tokenizer_path)
    fit_stages(run, in_dist.train.rows(np.arange(4)), outliers, resume=False, announce=lambda _: None)
    model = scored_model(recipe, load_model(run, recipe.export.stage, 2)).eval()
    with torch.inference_mode():
        values = model(*model.model.prepare(torch.from_numpy(in_dist.test.x[np.arange(2)])))
    scores = dict(zip(model.output_names, values, strict=True))
    assert all(torch.isfinite(scores[name]).all() for name in recipe.export.scores)


def test_the_near_classes_of_the_small_image_recipes_are_no_outliers_and_neither_are_those_of_cifar10() -> None:
    recipe, whole = (load_recipe(Path(f"training/recipes/{name}.yaml")) for name in ("cifar10-energy", "cifar10-oe"))
    assert recipe.outliers is not None
    assert whole.outliers is not None
    outliers, near, overlap = recipe.outliers.train, recipe.evaluation.ood["near"], whole.outliers.train
    assert isinstance(outliers, Source)
    assert isinstance(near, Source)
    assert isinstance(overlap, Source)
    assert set(outliers.exclude_labels) == {*near.only_labels, *overlap.exclude_labels}
    assert recipe.evaluation.near == ("near",)


@pytest.mark.parametrize(
    ("recipe", "vocabulary_size", "millions"),
    [
        ("cifar10-pixelcnn-full", None, 53.7),
        ("ptb-word-qrnn-full", 10_001, 24.0),
        ("ptb-char-qrnn-full", 50, 20.0),
        ("cifar10-confidence-wrn", None, 8.95),
        ("cifar10-gan-wrn", None, 8.95),
        ("cifar10-wrn-fine-tune", None, 2.25),
    ],
)
def test_a_recipe_of_full_size_has_a_network_of_full_size(
    recipe: str, vocabulary_size: int | None, millions: float
) -> None:
    with torch.device("meta"):
        model = build_model(load_recipe(Path(f"training/recipes/{recipe}.yaml")), 10, vocabulary_size)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert weights / 1e6 == pytest.approx(millions, rel=0.01)
