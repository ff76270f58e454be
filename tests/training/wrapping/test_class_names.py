"""Class names of wrapped classifiers: the classes of labelled data are found among the classifier's."""

from collections.abc import Sequence

import numpy as np
import pytest

from training.data import Examples, StoredArray
from training.wrapping.class_names import targets_among


def labelled(labels: Sequence[str]) -> Examples:
    """One example of each class, with the classes in alphabetical order as readers have them."""
    names = tuple(sorted(labels))
    array = StoredArray(np.zeros((len(names), 1)))
    return Examples(array, np.arange(len(names), dtype=np.int64), names, "calibration", "data", "ab" * 32)


@pytest.mark.parametrize(
    "labels",
    [
        [str(number) for number in range(12)],
        [str(number) for number in range(1, 13)],
        [str(number) for number in range(90, 102)],
        [f"class-{letter}" for letter in "abcdefghijkl"],
    ],
)
def test_other_names_are_matched_in_order_and_numbers_in_ascending_order(labels: list[str]) -> None:
    data = labelled(labels)
    targets = targets_among(data, [f"name {number}" for number in range(12)], by_order=True)
    assert [data.labels[index] for index in np.argsort(targets)] == labels
