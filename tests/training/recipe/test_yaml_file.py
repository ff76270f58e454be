"""YAML of strangers: aliases, depth and size are bounded, a key occurs once, and no code is named without a flag."""

from pathlib import Path

import pytest
import yaml

from tests.training.support.datasets_on_disk import tiny_recipe
from training.errors import RecipeError
from training.recipe import load_recipe
from training.recipe.yaml_file import dump_yaml, parse_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 100,000 values with its aliases"),
        (LAUGHS.replace("[", "{k: [").replace("]", "]}"), "more than 100,000 values with its aliases"),
        ("a: &a [*a]", "alias that contains itself"),
        ("a: &a {b: *a}", "alias that contains itself"),
        ("name: one\nname: two\n", r"key 'name' twice \(line 2\)"),
        ("a: {b: 1, 'b': 2}", "key 'b' twice"),
        ("[" * 5000, "nested too deeply"),
        ("a: " * 3000, "is not valid YAML"),
        ("x" * (2**20 + 1), "more than 1,048,576 characters"),
        ("a: !!python/object/apply:os.system [id]", "is not valid YAML"),
        ("a: 2026-99-99", "is not valid YAML"),
    ],
)
def test_yaml_that_grows_or_repeats_a_key_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        parse_yaml(text, "r.yaml")


def test_aliases_and_merged_mappings_stay_usable() -> None:
    text = "a: &a {x: 1e-3, y: 2}\nb:\n  <<: *a\n  y: 3\nc: [*a, *a]\n"
    assert parse_yaml(text, "r.yaml") == {
        "a": {"x": 1e-3, "y": 2},
        "b": {"x": 1e-3, "y": 3},
        "c": [{"x": 1e-3, "y": 2}] * 2,
    }


@pytest.mark.parametrize(
    "text", ["1e5", "-1.5E-3", "007", "null", "~", "yes", "1_000", "0x1f", "2026-01-01", "", " a", "é"]
)
def test_texts_that_look_like_other_values_are_written_and_read_as_texts(text: str) -> None:
    assert parse_yaml(dump_yaml({"exclude_labels": [text], text: 1e-3}), "r.yaml") == {
        "exclude_labels": [text],
        text: 1e-3,
    }


@pytest.mark.parametrize("key", ["architecture", "stages.oe.objective"])
@pytest.mark.parametrize("name", ["os.system", "subprocess:run", "torch.nn.Identity"])
def test_code_is_named_by_a_recipe_only_with_a_flag(key: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe()))
    change = f"{key}={{name: '{name}'}}"
    with pytest.raises(RecipeError, match=rf"names code to import: {key} '{name}'.*--allow-code"):
        load_recipe(path, [change])
    assert load_recipe(path, [change], allow_code=True).name == "stripes"


def test_a_misspelt_key_is_named_with_the_one_that_was_probably_meant(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe()))
    for change, reason in (
        ("outlier={}", "there is no such key (did you mean 'outliers'?)"),
        ("in_distribution.trian={}", "there is no such key (did you mean 'train'?)"),
        ("stages.oe.epoch=3", "there is no such key (did you mean 'epochs'?)"),
    ):
        with pytest.raises(RecipeError) as raised:
            load_recipe(path, [change])
        assert reason in str(raised.value)
