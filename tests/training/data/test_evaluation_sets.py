"""Evaluation sets: no input that was trained on, no text of unknown words, no distorted test image for a choice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.support.datasets_on_disk import checkers, tiny_recipe, write_parquet, write_tiny_data
from tests.training.support.texts_on_disk import sentences, tiny_text_recipe, write_texts, write_tiny_texts
from training.data import (
    DataLocations,
    EvaluationSet,
    Examples,
    load_evaluation_sets,
    load_in_distribution,
    load_set,
    open_reader,
)
from training.data import generate as generate_images
from training.errors import OverlapError, RecipeError
from training.recipe import Recipe, parse_recipe

JIGSAW = {"jigsaw": {"synthetic": "jigsaw", "size": 20, "jpeg_quality": None}}


def evaluation(**changes: Any) -> dict[str, Any]:
    return {"ood": {"checkers": {"path": "ood.parquet"}}, "validation": JIGSAW, "draws": 3} | changes


def load(root: Path, recipe: Recipe) -> dict[str, EvaluationSet]:
    locations = DataLocations(data_dir=root, cache_dir=root / "cache")
    reader = open_reader(recipe, locations, root / "tokenizer.json")
    in_dist = load_in_distribution(recipe, reader)
    outliers = None
    if recipe.outliers is not None:
        outliers = load_set(recipe.outliers.train, reader, in_dist.train, name="outliers", seed=recipe.seed)
    return dict(load_evaluation_sets(recipe, reader, in_dist, outliers))


def inputs(examples: Examples) -> NDArray[np.uint8]:
    return np.asarray(examples.x[np.arange(len(examples))])


def quadrants(images: NDArray[np.uint8]) -> set[bytes]:
    """The quadrants of 16x16 images, which a jigsaw moves and does not change."""
    return {image[r : r + 8, c : c + 8].tobytes() for image in images for r in (0, 8) for c in (0, 8)}


def test_a_validation_set_distorts_training_images_and_no_test_image(tmp_path: Path) -> None:
    recipe = parse_recipe(tiny_recipe(evaluation=evaluation()), "test")
    sets = load(write_tiny_data(tmp_path), recipe)
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    in_dist = load_in_distribution(recipe, open_reader(recipe, locations, tmp_path / "tokenizer.json"))
    found = quadrants(inputs(sets["jigsaw"].examples))
    assert found <= quadrants(inputs(in_dist.train))
    assert found.isdisjoint(quadrants(inputs(in_dist.test)))


def test_a_validation_set_distorts_held_out_outliers_where_there_are_some(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    held_out = checkers(30, seed=8)
    write_parquet(tmp_path / "more.parquet", held_out)
    recipe = parse_recipe(tiny_recipe(evaluation=evaluation(held_out_outliers={"path": "more.parquet"})), "test")
    assert quadrants(inputs(load(tmp_path, recipe)["jigsaw"].examples)) <= quadrants(held_out)


def test_held_out_outliers_that_were_trained_on_are_not_distorted(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    trained_on = checkers(40, seed=8)
    write_parquet(tmp_path / "outliers.parquet", trained_on)
    held_out = checkers(30, seed=9)
    held_out[:20] = trained_on[:20]
    write_parquet(tmp_path / "more.parquet", held_out)
    recipe = parse_recipe(tiny_recipe(evaluation=evaluation(held_out_outliers={"path": "more.parquet"})), "test")
    assert quadrants(inputs(load(tmp_path, recipe)["jigsaw"].examples)) <= quadrants(held_out[20:])


def test_a_test_set_that_distorts_images_distorts_test_images(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    recipe = parse_recipe(tiny_recipe(evaluation=evaluation(ood=JIGSAW, validation={})), "test")
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    in_dist = load_in_distribution(recipe, open_reader(recipe, locations, tmp_path / "tokenizer.json"))
    assert quadrants(inputs(load(tmp_path, recipe)["jigsaw"].examples)) <= quadrants(inputs(in_dist.test))


def test_images_that_were_trained_on_as_outliers_are_left_out_and_counted(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    outliers = checkers(30, seed=8)
    write_parquet(tmp_path / "outliers.parquet", outliers)
    ood = checkers(40, seed=4)
    # A copy, and a mirror image.
    ood[3], ood[5] = outliers[7], outliers[9][:, ::-1]
    write_parquet(tmp_path / "ood.parquet", ood)
    sets = load(tmp_path, parse_recipe(tiny_recipe(evaluation=evaluation()), "test"))
    assert (sets["checkers"].trained_on, sets["checkers"].unknown) == (2, 0)
    np.testing.assert_array_equal(inputs(sets["checkers"].examples), np.delete(ood, [3, 5], axis=0))


def test_a_set_of_training_outliers_only_is_refused(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    recipe = parse_recipe(tiny_recipe(evaluation=evaluation(ood={"same": {"path": "outliers.parquet"}})), "test")
    with pytest.raises(OverlapError, match="no input for the set 'same': 120 are training outliers"):
        load(tmp_path, recipe)


def test_without_training_outliers_every_image_remains(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    raw = tiny_recipe(evaluation=evaluation())
    del raw["outliers"], raw["stages"]["oe"]
    raw["export"] = {"stage": "baseline", "alpha": 0.05}
    sets = load(tmp_path, parse_recipe(raw, "test"))
    assert {name: len(loaded.examples) for name, loaded in sets.items()} == {"checkers": 40, "jigsaw": 20}


def test_a_synthetic_set_of_the_kind_of_the_outliers_has_other_images(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    noise = {"synthetic": "uniform", "size": 40, "jpeg_quality": None}
    recipe = parse_recipe(tiny_recipe(outliers={"train": noise}, evaluation=evaluation(ood={"noise": noise})), "test")
    loaded = load(tmp_path, recipe)["noise"]
    assert loaded.trained_on == 0
    trained_on = generate_images("uniform", (40, 16, 16, 3), seed=recipe.seed, jpeg_quality=None)
    assert {image.tobytes() for image in inputs(loaded.examples)}.isdisjoint(image.tobytes() for image in trained_on)


def test_texts_of_unknown_words_only_and_texts_that_were_trained_on_are_left_out_and_counted(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    outliers = sentences("outliers", 150, 5)
    ood = ["bread and comet", "comet", "nebula nebula", outliers[0], "the moon is a rocket", "comet galaxy"]
    write_texts(tmp_path / "ood.parquet", ood)
    # With this outlier, a text of one unknown word repeats a training outlier, but is counted once.
    write_texts(tmp_path / "outliers.parquet", [*outliers, "zither"])
    loaded = load(tmp_path, parse_recipe(tiny_text_recipe(), "test"))["unseen"]
    assert len(loaded.examples) == 2
    assert (loaded.trained_on, loaded.unknown) == (1, 3)


def test_held_out_outliers_are_no_test_set_and_images() -> None:
    with pytest.raises(RecipeError, match="held_out_outliers: the test set checkers"):
        parse_recipe(tiny_recipe(evaluation=evaluation(held_out_outliers={"path": "ood.parquet"})), "test")
    texts = {"ood": {"unseen": {"path": "ood.parquet"}}, "held_out_outliers": {"path": "more.parquet"}}
    with pytest.raises(RecipeError, match="held_out_outliers: for distortions of images"):
        parse_recipe(tiny_text_recipe(evaluation=texts), "test")
