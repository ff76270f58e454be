"""Labels: cells without a class are found with their rows, and never become classes."""

import math

import pytest

from training.data.labels import read_labels


@pytest.mark.parametrize(
    "missing", ["", "  ", None, math.nan, "nan", "NaN", "None", "null", "NA", "N/A", "<NA>", "NaT"]
)
def test_a_cell_without_a_label_is_a_fault_of_its_row_and_no_class(missing: object) -> None:
    labels = read_labels(["cat", missing, "dog", missing], None)
    assert labels.names == ("cat", "dog")
    assert labels.y.tolist() == [0, -1, 1, -1]
    assert list(labels.faults) == [1, 3]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([1.0, math.nan, 0.0], ("0", "1")),
        (["1.0", "", "0.0"], ("0", "1")),
        (["1.0", "v2", "0.0"], ("0.0", "1.0", "v2")),
        ([1, None, 0], ("0", "1")),
        ([" cat", "cat ", "dog"], ("cat", "dog")),
        ([True, False, None], ("False", "True")),
        (["007", "7", "1e5"], ("007", "1e5", "7")),
        ([0.5, 1.0, math.nan], ("0.5", "1")),
        (["none", "cat", "Null value"], ("Null value", "cat", "none")),
    ],
)
def test_class_names_are_the_cells_without_spaces_and_the_decimals_of_whole_numbers(
    cells: list[object], names: tuple[str, ...]
) -> None:
    assert read_labels(cells, None).names == names


def test_class_numbers_have_the_names_of_the_file_and_others_are_faults() -> None:
    labels = read_labels([1, 0, -1, None, 2], ["dark", "bright"])
    assert labels.names == ("dark", "bright")
    assert labels.y.tolist() == [1, 0, -1, -1, -1]
    assert list(labels.faults) == [2, 3, 4]
