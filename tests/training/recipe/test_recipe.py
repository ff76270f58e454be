"""Recipes: valid ones parse, others are refused with the key that is wrong."""

from pathlib import Path

import pytest
import yaml

from tests.training.support.datasets_on_disk import tiny_recipe
from tests.training.support.texts_on_disk import tiny_text_recipe
from training.errors import RecipeError
from training.recipe import load_recipe, parse_recipe

RECIPES = sorted(Path("training/recipes").glob("*.yaml"))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_overrides_change_any_key(recipe_file: Path) -> None:
    changes = ["stages.oe.epochs=7", "architecture.width=8", "seed=3", "export.version=2"]
    recipe = load_recipe(recipe_file, [*changes, "stages.oe.learning_rate=1e-3"])
    assert recipe.stages["oe"].epochs == 7
    assert recipe.architecture.options == {"width": 8}
    assert recipe.seed == 3
    assert recipe.export.version == "2"
    assert recipe.stages["oe"].learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("stages.oe.epochs=0", "stages.oe.epochs"),
        ("stages.oe.epochs=many", "stages.oe.epochs"),
        ("stages.oe.learning_rat=0.1", "stages.oe.learning_rat"),
        ("stages.oe.outlier_augmentation={zoom: 0}", "stages.oe.outlier_augmentation.zoom"),
        ("stages.oe.outlier_augmentation={share: 1.5}", "stages.oe.outlier_augmentation.share"),
        (
            "stages.oe.augmentation={share: 0.5}",
            "stages.oe.augmentation.*share: applies to zoom and jitter",
        ),
        ("stages.oe.start_from=nowhere", "nowhere"),
        ("stages.oe.start_from=[baseline, nowhere]", "nowhere"),
        ("stages.oe.start_from=[baseline]", r"stages\.oe\.start_from"),
        ("export.stage=missing", "export.stage"),
        ("export.default_score=bpp", "export.default_score"),
        ("export.scores=[msp, brightness]", "brightness"),
        ("input.std=[0.1]", "input"),
        ("evaluation.validation={checkers: {synthetic: uniform}}", "evaluation.*checkers"),
        ("evaluation.near=[forests]", "evaluation.*near: forests"),
        ("evaluation.recalls=[1.5]", r"evaluation\.recalls"),
        ("evaluation.ood.checkers.pth=x", r"evaluation\.ood\.checkers\.pth"),
        ("evaluation.ood.gaussian.sise=3", r"evaluation\.ood\.gaussian\.sise"),
        ("export.version=1.5", "export.version"),
        ("stages.oe.epochs=[", "valid YAML"),
        ("seed", "seed"),
        ("name.first=x", "name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(recipe_file: Path, override: str, key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize("key", ["augmentation", "outlier_augmentation"])
def test_texts_are_not_augmented_as_images(key: str) -> None:
    recipe = tiny_text_recipe()
    recipe["stages"]["oe"][key] = {"pad": 2}
    with pytest.raises(RecipeError, match=rf"stages\.oe\.{key}: for images"):
        parse_recipe(recipe, "test")


def test_a_missing_section_is_named() -> None:
    raw = tiny_recipe()
    del raw["architecture"]
    with pytest.raises(RecipeError, match="architecture"):
        parse_recipe(raw, "here.yaml")


@pytest.mark.parametrize("text", ["", "- a list", "a: [unclosed", "seed: 2024-01-01"])
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.yaml"):
        load_recipe(path)


def test_an_absent_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_recipe_that_extends_another_changes_only_what_it_names(recipe_file: Path) -> None:
    path = recipe_file.with_name("more.yaml")
    changes = {"extends": recipe_file.name, "architecture": {"name": "wide_resnet"}, "stages": {"oe": {"epochs": 9}}}
    path.write_text(yaml.safe_dump(changes), encoding="utf-8")
    base, recipe = load_recipe(recipe_file), load_recipe(path)
    assert recipe.stages["oe"] == base.stages["oe"].model_copy(update={"epochs": 9})
    assert recipe.stages["baseline"] == base.stages["baseline"]
    assert recipe.architecture.options == {}


@pytest.mark.parametrize("config", [{"synthetic": "noisy", "size": 7}, {"path": "others.parquet"}])
def test_a_synthetic_set_replaces_a_data_set_completely_and_the_reverse(
    recipe_file: Path, config: dict[str, object]
) -> None:
    base = {"path": "a.parquet", "label": "label"} if "synthetic" in config else {"synthetic": "uniform", "size": 3}
    recipe_file.write_text(yaml.safe_dump(tiny_recipe(outliers={"train": base})), encoding="utf-8")
    path = recipe_file.with_name("more.yaml")
    path.write_text(yaml.safe_dump({"extends": recipe_file.name, "outliers": {"train": config}}), encoding="utf-8")
    outliers = load_recipe(path).outliers
    assert outliers is not None
    assert outliers.train.model_dump(exclude_unset=True) == config


def test_a_recipe_that_extends_itself_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(f"extends: {recipe_file.name}", encoding="utf-8")
    with pytest.raises(RecipeError, match="extends"):
        load_recipe(recipe_file)


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(f"extends: {other}.yaml", encoding="utf-8")
    with pytest.raises(RecipeError, match="extends"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"outliers": {"train": {"synthetic": "gaussian"}}}, "synthetic"),
        ({"input": {"kind": "text", "height": 3}}, r"input\.height"),
        ({"input": {"kind": "audio"}}, "input"),
    ],
)
def test_a_text_recipe_with_sections_for_images_is_refused(changes: dict[str, object], key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        parse_recipe(tiny_text_recipe(**changes), "test")
