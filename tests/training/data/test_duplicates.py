"""Duplicates: copies of an in-distribution example remain in one split only, and are counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training.support.datasets_on_disk import stripes, tiny_recipe, write_parquet
from tests.training.support.texts_on_disk import tiny_text_recipe, write_texts
from training.data import (
    DataLocations,
    InDistributionData,
    InDistributionRows,
    RemovedDuplicates,
    load_in_distribution,
    open_reader,
    separate_duplicates,
)
from training.data.duplicates import text_hashes
from training.errors import DataError
from training.recipe import Recipe, parse_recipe

SEPARATE_TEST = {
    "train": {"path": "train.parquet", "label": "label"},
    "test": {"path": "test.parquet", "label": "label"},
    "calibration_size": 20,
}
HELD_OUT_TEST = {"train": {"path": "train.parquet", "label": "label"}, "test_size": 20, "calibration_size": 20}


def load(root: Path, recipe: Recipe, **locations: Any) -> InDistributionData:
    places = DataLocations(data_dir=root, cache_dir=root / "cache", **locations)
    return load_in_distribution(recipe, open_reader(recipe, places, root / "tokenizer.json"))


def contents(in_dist: InDistributionData) -> dict[str, list[bytes]]:
    """The stored inputs of each split as bytes."""
    splits = {"train": in_dist.train, "calibration": in_dist.calibration, "test": in_dist.test}
    return {name: [row.tobytes() for row in split.x[np.arange(len(split))]] for name, split in splits.items()}


def assert_disjoint(in_dist: InDistributionData) -> None:
    splits = [set(rows) for rows in contents(in_dist).values()]
    for i, split in enumerate(splits):
        assert all(split.isdisjoint(other) for other in splits[i + 1 :])


@given(
    hashes=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=3, max_size=20),
    test_hashes=st.none() | st.lists(st.sampled_from([b"a", b"b", b"c", b"x"]), max_size=10),
    seed=st.integers(0, 100),
)
def test_no_two_splits_share_a_content_and_no_other_example_is_left_out(
    hashes: list[bytes], test_hashes: list[bytes] | None, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(hashes)).astype(np.int64)
    calibration, held_out, train = (np.sort(part) for part in np.array_split(order, 3))
    rows = InDistributionRows(train, calibration, held_out if test_hashes is None else np.empty(0, dtype=np.int64))
    test = [hashes[row] for row in rows.test] if test_hashes is None else test_hashes
    kept = separate_duplicates(rows, hashes, test_hashes)
    kept_train, kept_test = {hashes[row] for row in kept.train}, {test[row] for row in kept.test}
    calibration_contents = {hashes[row] for row in calibration}
    assert kept_train.isdisjoint(calibration_contents | set(test))
    assert kept_test.isdisjoint(calibration_contents)
    assert kept_train == {hashes[row] for row in train} - calibration_contents - set(test)
    assert kept_test == set(test) - calibration_contents
    assert [row for row in train if hashes[row] in kept_train] == kept.train.tolist()


@pytest.mark.parametrize("cache_bytes", [10**9, 100], ids=["cached", "decoded on demand"])
@pytest.mark.parametrize("in_distribution", [SEPARATE_TEST, HELD_OUT_TEST], ids=["separate test", "held-out test"])
def test_copies_of_images_remain_in_one_split(
    in_distribution: dict[str, Any], cache_bytes: int, tmp_path: Path
) -> None:
    x, y = stripes(120, seed=1)
    x[100:] = x[:20]
    write_parquet(tmp_path / "train.parquet", x, y)
    test_x, test_y = stripes(40, seed=2)
    test_x[30:] = x[50:60]
    write_parquet(tmp_path / "test.parquet", test_x, test_y)
    recipe = parse_recipe(tiny_recipe(in_distribution=in_distribution), "test")
    in_dist = load(tmp_path, recipe, cache_bytes=cache_bytes)
    assert_disjoint(in_dist)
    assert len(in_dist.calibration) == 20
    assert in_dist.duplicates.train > 0
    n_test = 40 if "test" in in_distribution else 20
    assert len(in_dist.test) + in_dist.duplicates.test == n_test
    assert len(in_dist.train) + in_dist.duplicates.train == 120 - 20 - (0 if "test" in in_distribution else 20)


def test_data_without_copies_are_split_as_before(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", *stripes(120, seed=1))
    write_parquet(tmp_path / "test.parquet", *stripes(40, seed=2))
    recipe = parse_recipe(tiny_recipe(in_distribution=SEPARATE_TEST), "test")
    in_dist = load(tmp_path, recipe)
    assert in_dist.duplicates == RemovedDuplicates(0, 0)
    assert (len(in_dist.train), len(in_dist.calibration), len(in_dist.test)) == (100, 20, 40)
    reader = open_reader(recipe, DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache"), tmp_path / "t.json")
    assert recipe.in_distribution.test is not None
    assert in_dist.test.sha256 == reader.load(recipe.in_distribution.test, name="test").sha256


def test_the_sample_is_the_first_test_example_that_remains(tmp_path: Path) -> None:
    x, y = stripes(120, seed=1)
    write_parquet(tmp_path / "train.parquet", x, y)
    recipe = parse_recipe(tiny_recipe(in_distribution=SEPARATE_TEST), "test")
    write_parquet(tmp_path / "test.parquet", *stripes(40, seed=2))
    calibration = load(tmp_path, recipe).calibration
    test_x, test_y = stripes(40, seed=3)
    test_x[0] = calibration.x[np.array([0])][0]
    write_parquet(tmp_path / "test.parquet", test_x, test_y)
    in_dist = load(tmp_path, recipe)
    assert in_dist.duplicates == RemovedDuplicates(train=0, test=1)
    assert in_dist.sample.row == 1
    np.testing.assert_array_equal(in_dist.test.x[np.array([0])][0], test_x[1])


def test_texts_that_differ_in_case_and_spacing_are_copies_and_in_unknown_words_are_not() -> None:
    hashes = text_hashes(["The ship", "the  SHIP\n", "the shop"])
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_copies_of_held_out_texts_add_no_word_to_the_vocabulary(tmp_path: Path) -> None:
    texts = [f"common word{i} word{i}" for i in range(120)]
    test = ["common word7  WORD7", "common word8 word8", *(f"common comet comet{i} comet{i}" for i in range(5))]
    write_texts(tmp_path / "train.parquet", texts, [i % 2 for i in range(120)])
    write_texts(tmp_path / "test.parquet", test, [i % 2 for i in range(7)])
    in_dist = load(tmp_path, parse_recipe(tiny_text_recipe(in_distribution=SEPARATE_TEST), "test"))
    # Two of the test texts repeat one of the 120 texts each, which is a training or a calibration example.
    assert in_dist.duplicates.train + in_dist.duplicates.test == 2
    vocabulary = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab()
    assert {"word7", "word8", "comet"}.isdisjoint(vocabulary)


def test_a_class_without_training_examples_is_named(tmp_path: Path) -> None:
    x, y = stripes(120, seed=1)
    # All bright pictures are copies of one; some of them are held out.
    x[y == 1] = x[1]
    write_parquet(tmp_path / "train.parquet", x, y)
    write_parquet(tmp_path / "test.parquet", *stripes(40, seed=2))
    with pytest.raises(DataError, match="no in-distribution train example has the label bright"):
        load(tmp_path, parse_recipe(tiny_recipe(in_distribution=SEPARATE_TEST), "test"))


def test_data_of_one_repeated_example_are_refused(tmp_path: Path) -> None:
    x, y = stripes(120, seed=1)
    write_parquet(tmp_path / "train.parquet", np.repeat(x[:1], 120, axis=0), y)
    write_parquet(tmp_path / "test.parquet", *stripes(40, seed=2))
    recipe = parse_recipe(tiny_recipe(in_distribution=SEPARATE_TEST), "test")
    with pytest.raises(DataError, match="every training example is a copy"):
        load(tmp_path, recipe)
    write_parquet(tmp_path / "train.parquet", x, y)
    calibration = load(tmp_path, recipe).calibration
    write_parquet(tmp_path / "test.parquet", calibration.x[np.arange(5)], np.arange(5) % 2)
    with pytest.raises(DataError, match="every test example is a copy"):
        load(tmp_path, recipe)


@pytest.mark.parametrize("in_distribution", [SEPARATE_TEST, {**HELD_OUT_TEST, "test_size": 4}])
def test_too_few_test_examples_without_copies_are_refused(in_distribution: dict[str, Any], tmp_path: Path) -> None:
    x, y = stripes(120, seed=1)
    write_parquet(tmp_path / "train.parquet", x, y)
    write_parquet(tmp_path / "test.parquet", *stripes(40, seed=2))
    copied = load(tmp_path, parse_recipe(tiny_recipe(in_distribution=SEPARATE_TEST), "test")).calibration
    test = np.concatenate([copied.x[np.arange(20)], stripes(4, seed=2)[0]])
    write_parquet(tmp_path / "test.parquet", test, np.arange(24) % 2)
    with pytest.raises(DataError, match=r"gives 4 in-distribution test inputs.*need 5 or more"):
        load(tmp_path, parse_recipe(tiny_recipe(in_distribution=in_distribution), "test"))


def test_the_numbers_of_copies_are_told() -> None:
    duplicates = RemovedDuplicates(train=1234, test=2)
    assert str(duplicates).startswith("1,234 training examples that repeat a held-out example and 2 test examples")
    assert replace(duplicates, test=0).total == 1234
