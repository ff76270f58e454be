"""Tokenizers of words in Penn Treebank's form and of characters: every text has tokens, and its form has no effect."""

import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle import TextEncoder
from tests.training.support.texts_on_disk import tiny_text_recipe, write_tiny_texts
from training.data import DataLocations, open_reader
from training.data.penn_treebank import UNREADABLE, penn_treebank
from training.data.tokenizer import train_tokenizer
from training.errors import RecipeError
from training.recipe import TextConfig, parse_recipe

NORMALIZER = penn_treebank()
TREEBANK = (
    "mr. vinken is chairman of <unk> n.v. the dutch publishing group",
    "it 's the N N rise to $ N million that traders do n't like he said",
    "a 30-year bond of the 1980s and s&p 's index in the u.s.",
    "the mgm\\/ua group of traders ' funds ca n't",
)
CONFIGS = (
    TextConfig(min_frequency=1, normalize="penn-treebank"),
    TextConfig(min_frequency=1, unit="character", normalize="penn-treebank"),
    TextConfig(min_frequency=1, unit="character"),
    TextConfig(min_frequency=1, unit="character", lowercase=False),
)


@cache
def encoder(config: TextConfig, texts: tuple[str, ...] = TREEBANK) -> TextEncoder:
    return TextEncoder(train_tokenizer(texts, config), config.max_tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith's dog isn't here, is it?", "mr smith 's dog is n't here is it"),
        ("I can't, won't & cannot -- WE'LL see...", "i ca n't wo n't & can not we 'll see"),
        ("It rose 5.2% to $1,200.50 (up 7 1/2).", "it rose N N to $ N up N N"),
        ("\u201cQuoted,\u201d he\u2019d said: \u2018yes\u2019 \u2014 at 10:30 a.m.", "quoted he 'd said yes at N a.m"),
        ("the traders' union, in 1912\u20131914", "the traders union in N N"),
        ("A \u00a35 caf\u00e9, a 30-year-old in the 1980s", "a # N cafe a 30-year-old in the 1980s"),
        ("U.S. and/or AT&T", "u.s and/or at&t"),
        # WikiText's form.
        ("In 7 @.@ 5 years 38 @,@ 000 men don 't re @-@ enter .", "in N years N men do n't re-enter"),
        ('<unk> \'s " <unk> " , mid @-@ <unk>', f"{UNREADABLE} 's {UNREADABLE} mid-{UNREADABLE}"),
        ("?!", UNREADABLE),
        ("", ""),
    ],
)
def test_ordinary_text_is_converted_to_the_form_of_the_treebank(text: str, expected: str) -> None:
    assert NORMALIZER.normalize_str(text) == expected


@pytest.mark.parametrize("text", TREEBANK)
def test_the_treebanks_own_text_keeps_its_form(text: str) -> None:
    kept = [word.rstrip(".").replace("\\/", "/").replace("<unk>", UNREADABLE) for word in text.split() if word != "'"]
    assert NORMALIZER.normalize_str(text).split() == kept


@settings(max_examples=60)
@given(st.text())
def test_any_text_has_single_spaces_and_no_punctuation_after_normalisation(text: str) -> None:
    normalised = NORMALIZER.normalize_str(text)
    assert "  " not in normalised
    assert normalised == normalised.strip()
    assert not set(normalised) & set(',;!?"()[]{}')
    assert bool(normalised) or not any(character.isalnum() for character in text)


@pytest.mark.parametrize("run", ["!", "a!", "1,", " ", "'", "' ", "%", "1", ".", "-", "n ", "<unk>", "N ", "\u0301"])
def test_normalising_takes_linear_time(run: str) -> None:
    start = time.process_time()
    NORMALIZER.normalize_str(run * (100_000 // len(run)) + "a")
    # Quadratic time would be minutes.
    assert time.process_time() - start < 5


@pytest.mark.parametrize("config", CONFIGS)
@settings(max_examples=40)
@given(text=st.text(max_size=80))
def test_every_text_with_a_letter_has_symbols_of_the_vocabulary(config: TextConfig, text: str) -> None:
    encoding = encoder(config)
    (ids,) = encoding.encode_batch([text])
    assert len(ids) or not any(character.isalnum() for character in text)
    assert all(1 <= i < encoding.vocabulary_size for i in ids)


def test_an_unknown_word_and_an_unreadable_one_are_the_same_token() -> None:
    ids = encoder(CONFIGS[0]).encode("the <unk> zyzzyva the")
    assert ids[0] == ids[3] > 1
    assert ids[1] == ids[2] == 1


def test_by_characters_an_unreadable_word_is_one_unknown_character() -> None:
    ids = encoder(CONFIGS[1]).encode("a <unk> a").tolist()
    a, space = encoder(CONFIGS[1]).encode("a a").tolist()[:2]
    assert ids == [a, space, 1, space, a]


def test_characters_keep_case_and_line_ends_by_default() -> None:
    encoding = encoder(CONFIGS[3], ("Ab\nc ", "\U0001f600"))
    assert encoding.encode("Ab\nc \U0001f600").min() > 1
    assert encoding.encode("B").tolist() == [1]
    assert encoder(CONFIGS[2], ("Ab",)).encode("aB").min() > 1


@pytest.mark.parametrize("config", CONFIGS)
def test_no_text_is_read_as_a_special_token(config: TextConfig) -> None:
    for text in ("[PAD]", "[UNK]"):
        assert 0 not in encoder(config).encode(text)
        assert len(encoder(CONFIGS[3]).encode(text)) == 5


def test_the_vocabulary_has_the_most_frequent_symbols_that_are_frequent_enough() -> None:
    texts = ("ccc bb a", "c b")
    size, frequent = (
        train_tokenizer(texts, TextConfig(unit="character", **limits)).get_vocab()
        for limits in ({"vocabulary_size": 4, "min_frequency": 1}, {"min_frequency": 3})
    )
    assert size == {"[PAD]": 0, "[UNK]": 1, "c": 2, " ": 3}
    assert frequent == {"[PAD]": 0, "[UNK]": 1, "c": 2, " ": 3, "b": 4}


def test_the_tokenizer_of_a_recipe_is_saved_with_its_normaliser(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    config = {"kind": "text", "unit": "character", "normalize": "penn-treebank", "max_tokens": 99}
    recipe = parse_recipe(tiny_text_recipe(input=config), "test")
    open_reader(recipe, DataLocations(data_dir=tmp_path, cache_dir=tmp_path / "cache"), tmp_path / "tokenizer.json")
    served = TextEncoder.load(tmp_path / "tokenizer.json", 99)
    assert served.encode("The OVEN, the bread!").tolist() == served.encode("the oven the bread").tolist()
    assert len(served.encode("the oven")) == 8


@pytest.mark.parametrize(
    "config",
    [
        {"unit": "syllable"},
        {"normalize": "brown"},
        {"unit": "character", "tokenizer": "tokenizer.json"},
        {"normalize": "penn-treebank", "tokenizer": "tokenizer.json"},
        {"normalize": "penn-treebank", "lowercase": False},
    ],
)
def test_tokenizer_options_that_contradict_each_other_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="input"):
        parse_recipe(tiny_text_recipe(input={"kind": "text"} | config), "test")


def test_a_tokenizer_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    write_tiny_texts(tmp_path)
    recipe = parse_recipe(tiny_text_recipe(input={"kind": "text", "tokenizer": str(tmp_path)}), "test")
    with pytest.raises(RecipeError, match=r"input\.tokenizer"):
        open_reader(recipe, DataLocations(data_dir=tmp_path, cache_dir=tmp_path), tmp_path / "tokenizer.json")
