"""Examples: subsets are views with their own hash; unsuitable labels are refused."""

import numpy as np
import pytest

from training.data import Examples, StoredArray
from training.errors import DataError


def numbered(y: list[int] | None, labels: tuple[str, ...] = ("dark", "bright")) -> Examples:
    """Six examples whose value is their row number."""
    x = np.arange(6, dtype=np.uint8)[:, None]
    return Examples(StoredArray(x), None if y is None else np.array(y), labels, "numbered", "memory", "0a")


def test_a_subset_of_a_subset_has_the_rows_of_the_whole_set() -> None:
    subset = numbered([0, 1] * 3).rows(np.array([5, 3, 1])).rows(np.array([2, 0]), "two")
    assert subset.x[np.arange(2)].ravel().tolist() == [1, 5]
    assert subset.targets().tolist() == [1, 1]
    assert (len(subset), subset.name, subset.x.shape) == (2, "two", (2, 1))


def test_the_hash_of_a_subset_depends_on_its_rows_and_on_the_whole_set() -> None:
    examples = numbered([0, 1] * 3)
    hashes = {
        examples.sha256,
        examples.rows(np.array([0, 1])).sha256,
        examples.rows(np.array([1, 0])).sha256,
        examples.rows(np.array([0, 1])).rows(np.array([0, 1])).sha256,
    }
    assert len(hashes) == 4
    assert examples.rows(np.array([0, 1])).sha256 in hashes


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        (None, ("dark", "bright"), "has no labels"),
        ([0] * 6, ("dark",), "has 1 class"),
        ([0, 1] * 3, ("dark", "bright", "red"), "no numbered example has the label red"),
    ],
)
def test_labels_that_no_classifier_can_learn_are_refused(
    y: list[int] | None, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        numbered(y, labels).require_classes()
