"""Labels: cells without a class are found with their rows, and never become classes."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training.data import DataLocations, guess_source, read_texts
from training.data.labels import read_labels
from training.data.sources import read_rows

NAMES = ["None", "NA", "null", "nan", "NaN", "N/A", "007", "7", "1e5", "true"]
"""Class names that readers of tables often take for missing values, numbers or truth values."""


@pytest.mark.parametrize("missing", ["", "  ", None, math.nan])
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
        (
            ["nan", "NaN", None, "None", "null", "NA", "N/A", "<NA>"],
            ("<NA>", "N/A", "NA", "NaN", "None", "nan", "null"),
        ),
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


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(("a text", name) for name in NAMES), ("a text", "")])


def write_jsonl(path: Path) -> None:
    rows = [{"text": "a text", "label": name} for name in [*NAMES, None]]
    path.write_text("\n".join(map(json.dumps, rows)))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a text"] * (len(NAMES) + 1), "label": [*NAMES, None]}), path)


@pytest.mark.parametrize(
    ("name", "write"), [("t.csv", write_csv), ("t.jsonl", write_jsonl), ("t.parquet", write_parquet)]
)
def test_class_names_in_a_table_stay_as_they_are_and_only_an_empty_cell_has_no_label(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / name)
    rows = read_texts(guess_source(tmp_path / name, tmp_path), DataLocations(tmp_path, tmp_path / "cache"))
    assert rows.y is not None
    assert [rows.labels[y] for y in rows.y] == NAMES
    assert [(problem.row, problem.reason) for problem in rows.problems] == [(len(NAMES), "there is no label")]


@pytest.mark.parametrize("label", ["M\udcf6bel", b"M\xf6bel", "M\ud83d"])
def test_a_label_that_is_not_unicode_is_a_fault_of_its_row_and_no_class(label: str | bytes) -> None:
    labels = read_labels(["Kleid", label, b"Hose"], None)
    assert labels.names == ("Hose", "Kleid")
    assert labels.faults[1].startswith("its label is unreadable: The text is not U")


def test_labels_in_windows_1252_are_listed_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text,label\na,M\xf6bel\nb,Kleid\nc,Hose\n".encode("cp1252"))
    rows = read_rows(guess_source(tmp_path / "t.csv", tmp_path), tmp_path, "text")
    assert rows.labels == ("Hose", "Kleid")
    assert [problem.row for problem in rows.problems] == [0]
    assert rows.problems[0].reason.endswith("save the file as UTF-8")
    for i in range(2):
        Image.new("L", (4, 4)).save(tmp_path / f"{i}.png")
    (tmp_path / "metadata.csv").write_bytes("file_name,label\n0.png,M\xf6bel\n1.png,Kleid\n".encode("cp1252"))
    rows = read_rows(guess_source(tmp_path, tmp_path), tmp_path, "image")
    assert rows.labels == ("Kleid",)
    assert [problem.row for problem in rows.problems] == [0]


@pytest.mark.parametrize("described", [False, True], ids=["sub-folders", "metadata.csv"])
def test_class_names_of_images_stay_as_they_are(tmp_path: Path, *, described: bool) -> None:
    names = [name for name in NAMES if name != "N/A"]
    for i, name in enumerate(names):
        folder = tmp_path / "photos" if described else tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / f"{i}.png")
    if described:
        lines = ["file_name,label", *(f"{i}.png,{name}" for i, name in enumerate(names))]
        (tmp_path / "photos" / "metadata.csv").write_text("\n".join(lines))
    rows = read_rows(guess_source(tmp_path / "photos", tmp_path), tmp_path, "image")
    assert rows.y is not None
    assert sorted(rows.labels[y] for y in rows.y) == sorted(names)
    assert not rows.problems
