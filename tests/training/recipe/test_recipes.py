"""The shipped recipes: each trains on files of the layout that it names and gives the scores that it exports."""

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
from training.recipe import Recipe, Source, Synthetic, load_recipe
from training.run import Run

RECIPES = sorted(Path("training/recipes").glob("*.yaml"))
TEXT_RECIPES = [path for path in RECIPES if not isinstance(load_recipe(path).input, ImageInput)]
IMAGE_RECIPES = [path for path in RECIPES if isinstance(load_recipe(path).input, ImageInput)]

WORDS = ["bread", "ship", "the", "a", "market", "rose", "N", "company", "said", "it"]
_ROWS = 44
"""Just enough to hold out the fewest calibration examples that a recipe may ask for."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Networks are run on four images at a time: threads would wait for each other more than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shortened(path: Path) -> Recipe:
    """The recipe with one epoch of two images a step, and small sets."""
    recipe = load_recipe(path)
    changes = ["in_distribution.calibration_size=20", "trainer.precision=32-true"]
    for stage in recipe.stages:
        changes += [f"stages.{stage}.epochs=1", f"stages.{stage}.batch_size=2"]
    synthetic = {
        f"evaluation.{part}.{name}": plan
        for part in ("ood", "validation")
        for name, plan in getattr(recipe.evaluation, part).items()
    }
    if recipe.outliers is not None:
        synthetic["outliers.train"] = recipe.outliers.train
    changes += [f"{key}.size=12" for key, plan in synthetic.items() if isinstance(plan, Synthetic)]
    if recipe.architecture.name == "pixelcnn":
        # Its depth is what a recipe can get wrong; a test would wait a minute for the work of 160 filters.
        changes.append("architecture.filters=8")
    if recipe.architecture.name == "qrnn":
        changes.append("architecture.hidden=64")
    return load_recipe(path, changes)


def sources(recipe: Recipe) -> list[Source]:
    """Every data set that the recipe reads."""
    plans: list[Source | Synthetic] = [recipe.in_distribution.train, recipe.in_distribution.test]
    plans += [] if recipe.outliers is None else [recipe.outliers.train]
    plans += [*recipe.evaluation.ood.values(), *recipe.evaluation.validation.values()]
    return [plan for plan in plans if isinstance(plan, Source)]


def write(source: Source, root: Path, size: int, seed: int) -> None:
    """Random pictures in the place, format and columns of `source`, half of them of a class that it excludes."""
    x = np.random.default_rng(seed).integers(0, 256, (_ROWS, size, size, 3), dtype=np.uint8)
    labels = ["one", "other", *source.exclude_labels]
    y = np.arange(_ROWS) % 2
    y[_ROWS // 2 :] += 2 if source.exclude_labels else 0
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
def test_every_image_recipe_trains_on_files_of_the_layout_that_it_names(path: Path, tmp_path: Path) -> None:
    recipe = shortened(path)
    assert isinstance(recipe.input, ImageInput)
    for seed, source in enumerate(sources(recipe)):
        write(source, tmp_path / "data", recipe.input.height, seed)
    locations = DataLocations(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    inside = load_in_distribution(recipe, reader)
    for name, plan in (recipe.evaluation.ood | recipe.evaluation.validation).items():
        assert len(load_set(plan, reader, inside.test, name=name, seed=1)) in {12, _ROWS}
    assert recipe.outliers is not None
    found = load_set(recipe.outliers.train, reader, inside.train, name="outliers", seed=1)
    outliers = without_overlap(found, inside, reader, recipe.outliers)
    run = Run.create(tmp_path / "run", recipe, overwrite=False)
    fit_stages(run, inside.train.rows(np.arange(4)), outliers, resume=False, announce=lambda _: None)
    model = scored_model(recipe, load_model(run, recipe.export.stage, 2))
    with torch.inference_mode():
        values = model.eval()(torch.from_numpy(inside.test.x[np.arange(2)]))
    scores = dict(zip(model.output_names, values, strict=True))
    assert set(recipe.export.scores) <= set(scores)
    assert all(torch.isfinite(scores[name]).all() for name in recipe.export.scores)


def write_texts(source: Source, root: Path, seed: int, excluded: set[str]) -> None:
    """Random sentences in the locations and columns of `source`, half of them of the classes `excluded` by somebody."""
    generator = np.random.default_rng(seed)
    for place in (source.path, *source.also):
        texts = [" ".join(generator.choice(WORDS, generator.integers(2, 12))) for _ in range(_ROWS)]
        labels = ["one", "other", *sorted(excluded)]
        y = np.arange(_ROWS) % 2
        y[_ROWS // 2 :] = np.arange(_ROWS - _ROWS // 2) % len(labels)
        columns: dict[str, Any] = {source.text: texts}
        features: dict[str, Any] = {source.text: datasets.Value("string")}
        if source.label is not None:
            columns[source.label] = y.tolist()
            features[source.label] = datasets.ClassLabel(names=labels)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(root / place)


@pytest.mark.parametrize("path", TEXT_RECIPES, ids=lambda path: path.stem)
def test_every_text_recipe_trains_on_files_of_the_layout_that_it_names(path: Path, tmp_path: Path) -> None:
    recipe = shortened(path)
    for seed, source in enumerate(sources(recipe)):
        excluded = {label for each in sources(recipe) if each.path == source.path for label in each.exclude_labels}
        write_texts(source, tmp_path / "data", seed, excluded)
    reader = open_reader(recipe, DataLocations(data_dir=tmp_path / "data"), tmp_path / "tokenizer.json")
    inside = load_in_distribution(recipe, reader)
    for name, plan in (recipe.evaluation.ood | recipe.evaluation.validation).items():
        assert 0 < len(load_set(plan, reader, inside.test, name=name, seed=1)) <= _ROWS
    assert recipe.outliers is not None
    outliers = load_set(recipe.outliers.train, reader, inside.train, name="outliers", seed=1)
    run = Run.create(tmp_path / "run", recipe, overwrite=False)
    (tmp_path / "tokenizer.json").rename(run.tokenizer_path)
    fit_stages(run, inside.train.rows(np.arange(4)), outliers, resume=False, announce=lambda _: None)
    model = scored_model(recipe, load_model(run, recipe.export.stage, 2)).eval()
    with torch.inference_mode():
        values = model(*model.model.prepare(torch.from_numpy(inside.test.x[np.arange(2)])))
    scores = dict(zip(model.output_names, values, strict=True))
    assert all(torch.isfinite(scores[name]).all() for name in recipe.export.scores)


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
