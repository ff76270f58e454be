"""Splits: disjoint, the same for the same seed, and refused where too few examples would remain for training."""

import numpy as np
import pytest

from training.data import split_in_distribution
from training.data.splits import split_rows
from training.errors import DataError
from training.recipe import InDistribution, Source


def test_the_calibration_split_is_disjoint_and_the_same_for_the_same_seed() -> None:
    config = InDistribution(train=Source(path="x"), test=Source(path="y"), calibration_size=20)
    one, same, other = (split_in_distribution(100, config, seed, "x") for seed in (1, 1, 2))
    assert (len(one.train), len(one.calibration), len(one.test)) == (80, 20, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([one.train, one.calibration])), np.arange(100))
    np.testing.assert_array_equal(one.calibration, same.calibration)
    assert not np.array_equal(one.calibration, other.calibration)


def test_a_test_set_is_held_out_if_there_is_no_other() -> None:
    config = InDistribution(train=Source(path="x"), test_size=15, calibration_size=20)
    rows = split_in_distribution(100, config, 1, "x")
    assert (len(rows.train), len(rows.calibration), len(rows.test)) == (65, 20, 15)
    assert len(np.unique(np.concatenate([rows.train, rows.calibration, rows.test]))) == 100
    with pytest.raises(DataError, match="test_size"):
        split_in_distribution(29, config, 1, "x")


def test_rows_are_in_ascending_order() -> None:
    for rows in split_rows(50, 20, 1, "x"):
        np.testing.assert_array_equal(rows, np.sort(rows))


@pytest.mark.parametrize(("n", "size", "is_refused"), [(20, 9, False), (20, 10, True), (20, 15, True), (21, 9, False)])
def test_half_of_the_rows_or_more_cannot_be_held_out(n: int, size: int, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(DataError, match=f"holding out {size} of {n} examples would leave too few"):
            split_rows(n, size, 1, "x")
    else:
        assert [len(rows) for rows in split_rows(n, size, 1, "x")] == [n - size, size]


@pytest.mark.parametrize("both", [{}, {"test": Source(path="b"), "test_size": 5}])
def test_a_recipe_gives_a_test_set_or_the_size_of_one(both: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either test"):
        InDistribution.model_validate({"train": Source(path="a"), **both})
