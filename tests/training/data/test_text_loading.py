"""Text loading: blank texts are left out, held-out words are unknown, repeated texts are found."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.training.support.texts_on_disk import sentences, tiny_text_recipe, write_texts, write_tiny_texts
from training.data import DataLocations, TextReader, load_in_distribution, open_reader
from training.errors import DataError
from training.recipe import Source, parse_recipe


def test_the_vocabulary_holds_no_word_that_only_the_calibration_split_has(tmp_path: Path) -> None:
    texts = [f"common word{i} word{i} word{i}" for i in range(100)]
    write_texts(tmp_path / "train.parquet", texts, [i % 2 for i in range(100)])
    write_texts(tmp_path / "test.parquet", [f"common test{i}" for i in range(10)], [i % 2 for i in range(10)])
    recipe = parse_recipe(
        tiny_text_recipe(
            in_distribution={
                "train": {"path": "train.parquet", "label": "label"},
                "test": {"path": "test.parquet", "label": "label"},
                "calibration_size": 30,
            }
        ),
        "test",
    )
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    in_dist = load_in_distribution(recipe, reader)
    unknown = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).token_to_id("[UNK]")
    assert (in_dist.calibration.x[np.arange(30)][:, 1] == unknown).all()
    assert (in_dist.train.x[np.arange(70)][:, 1] != unknown).all()


def test_blank_texts_are_left_out_and_a_source_without_texts_is_refused(tmp_path: Path) -> None:
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    write_texts(tmp_path / "a.parquet", ["one two", "  ", "", "three"], [0, 1, 0, 1])
    write_texts(tmp_path / "blank.parquet", [" ", ""])
    recipe = parse_recipe(tiny_text_recipe(), "test")
    write_tiny_texts(tmp_path)
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    assert isinstance(reader, TextReader)
    loaded = reader.load(Source(path="a.parquet", label="label"), name="a")
    assert len(loaded) == 2
    assert loaded.targets().tolist() == [0, 1]
    with pytest.raises(DataError, match="no text"):
        reader.load(Source(path="blank.parquet"), name="b")
    with pytest.raises(DataError, match="column 'body'"):
        reader.load(Source(path="a.parquet", text="body"), name="c")


def test_outliers_that_are_in_distribution_texts_are_found_in_any_case_and_spacing(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    locations = DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    recipe = parse_recipe(tiny_text_recipe(), "test")
    reader = open_reader(recipe, locations, tmp_path / "tokenizer.json")
    in_dist = load_in_distribution(recipe, reader).test
    copied = sentences("kitchen", 40, 2)
    write_texts(tmp_path / "copies.parquet", ["an unlike sentence", f"  {copied[3].upper()}", copied[5]])
    overlap = reader.overlap(in_dist, reader.load(Source(path="copies.parquet"), name="copies"), "overlap")
    assert overlap.rows.tolist() == [1, 2]
