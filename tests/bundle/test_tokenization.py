"""Encoding of texts: equal ids alone, in a batch and on many threads, for every possible text."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from bundle import PADDING, EmptyText, TextEncoder, TokenizerInvalid, pad_tokens
from tests.support.tiny_text_bundle import tiny_tokenizer

# By default, `st.text()` draws no surrogates.
any_text = st.text(st.characters(exclude_categories=()), max_size=40) | st.text(" \t\n\u3000\u2028\x85", max_size=5)
sequences = st.lists(st.lists(st.integers(0, 2**40), min_size=1, max_size=9), max_size=6)


def bytes_tokenizer() -> Tokenizer:
    """A token for each byte, white space included, between two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def letters_tokenizer(splitter: PreTokenizer, *steps: Normalizer) -> Tokenizer:
    """A token for each of a few letters, one for all others, between two special tokens."""
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcσς\u0301é.5"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(list(steps))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(["[MASK]"])
    return tokenizer


LETTERS = {
    "nfkc": letters_tokenizer(pre_tokenizers.Whitespace(), normalizers.NFKC(), normalizers.Lowercase()),
    "nfd": letters_tokenizer(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]),
        normalizers.NFD(),
    ),
    "bert": letters_tokenizer(pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()),
    # The tokens of a prefix can differ from the first tokens of the text.
    "pattern": letters_tokenizer(pre_tokenizers.Split(Regex(r"a\s*b"), "removed"), normalizers.NFKC()),
    "replacement": letters_tokenizer(pre_tokenizers.Metaspace(), normalizers.Replace(Regex(r"a\s+"), "b")),
}

ENCODERS = {"words": TextEncoder(tiny_tokenizer(), 12), "bytes": TextEncoder(bytes_tokenizer(), 12)}


def unigram_tokenizer() -> Tokenizer:
    """A Unigram model, whose file names the id of unknown words and not the token."""
    return Tokenizer(models.Unigram([("[PAD]", 0.0), ("?", 0.0), ("a", -1.0)], unk_id=1))


@pytest.mark.parametrize(
    ("tokenizer", "unknown", "special"),
    [
        (LETTERS["bert"], 3, {1, 2, 13}),
        (bytes_tokenizer(), None, {1, 2}),
        (unigram_tokenizer(), 1, set()),
    ],
)
def test_an_encoder_knows_the_ids_of_unknown_words_and_of_special_tokens(
    tokenizer: Tokenizer, unknown: int | None, special: set[int]
) -> None:
    encoder = TextEncoder(tokenizer, 12)
    assert encoder.unknown_id == unknown
    assert encoder.special_ids == special


def test_the_unknown_token_is_not_among_the_special_ones() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]"])
    encoder = TextEncoder(tokenizer, 12)
    assert encoder.unknown_id == tokenizer.token_to_id("[UNK]")
    assert encoder.unknown_id not in encoder.special_ids
    assert PADDING in encoder.special_ids


@given(st.lists(any_text, max_size=6), st.sampled_from(list(ENCODERS)))
def test_a_text_has_the_same_ids_alone_and_in_a_batch_or_is_empty(texts: list[str], name: str) -> None:
    encoder = ENCODERS[name]
    together = encoder.encode_batch(texts)
    assert len(together) == len(texts)
    for text, ids in zip(texts, together, strict=True):
        assert ids.dtype == np.int64
        assert ids.size <= 12
        if ids.size:
            np.testing.assert_array_equal(encoder.encode(text), ids)
            assert 0 <= ids.min() <= ids.max() < encoder.vocabulary_size
        else:
            with pytest.raises(EmptyText, match="holds no word; send some text"):
                encoder.encode(text)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u3000", "\u2028\x85"])
def test_the_empty_text_and_white_space_are_empty(encoder: TextEncoder, text: str) -> None:
    with pytest.raises(EmptyText) as caught:
        encoder.encode(text)
    assert caught.value.type == "empty-input"


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("text", ["a{}b", "{}", "ball {} ball"])
def test_a_lone_surrogate_is_read_as_the_replacement_character(encoder: TextEncoder, text: str) -> None:
    for surrogate in ("\ud800", "\udbff", "\udc00", "\udfff"):
        ids, other = encoder.encode_batch([text.format(surrogate), "ball"])
        np.testing.assert_array_equal(ids, encoder.encode(text.format("\ufffd")))
        np.testing.assert_array_equal(other, encoder.encode("ball"))


def test_a_pair_of_surrogates_is_the_character_that_it_stands_for() -> None:
    np.testing.assert_array_equal(ENCODERS["bytes"].encode("\ud83d\ude00"), ENCODERS["bytes"].encode("\U0001f600"))


@given(st.lists(st.sampled_from(["ball", "vote", "xyzzy"]), min_size=1, max_size=30))
def test_tokens_beyond_the_maximum_are_cut_off(words: list[str]) -> None:
    all_ids = TextEncoder(tiny_tokenizer(), 100).encode(" ".join(words))
    np.testing.assert_array_equal(ENCODERS["words"].encode(" ".join(words)), all_ids[:12])


@given(st.text("abcΣσ\u0301é¨\ufb01.5漢\0 \t\n\u3000\x85", max_size=150), st.sampled_from(list(LETTERS)))
@example("a" + " " * 70 + "bca", "nfkc")
@example("ccca" + " " * 40 + "b" + "c" * 40, "pattern")
@example("ccca" + " " * 40 + "b" + "c" * 40, "replacement")
@example("aΣ" * 9 + " " + "Σ" * 90, "nfkc")
@example("[MASK] " * 20, "bert")
def test_a_long_text_has_its_first_ids_though_only_a_prefix_is_encoded(text: str, name: str) -> None:
    all_ids = LETTERS[name].encode(text).ids
    (ids,) = TextEncoder(LETTERS[name], 6).encode_batch([text])
    content = all_ids[1:-1]
    if content and not text.isspace():
        np.testing.assert_array_equal(ids, [1, *content[:4], 2])


@given(any_text, st.integers(0, 80), st.sampled_from(list(LETTERS)))
@example("ab " * 40, 40, "nfkc")
def test_with_a_limit_of_characters_a_text_has_its_own_ids_or_none(text: str, max_chars: int, name: str) -> None:
    encoder = TextEncoder(LETTERS[name], 6)
    try:
        encoded = encoder.encode_within(text, max_chars)
    except EmptyText:
        with pytest.raises(EmptyText):
            encoder.encode(text)
        return
    if encoded is None:
        assert len(text) > max_chars
    else:
        np.testing.assert_array_equal(encoded.ids, encoder.encode(text))


@given(st.text("abcΣσ\u0301é¨.5漢 \t\n\u3000", max_size=150), st.sampled_from(["nfkc", "nfd", "pattern"]))
@example("ab " * 40, "nfkc")
@example("a" * 40, "pattern")
@example("a b c d" + " " * 80, "nfkc")
def test_the_count_of_tokens_is_that_of_the_whole_text_or_a_lower_bound(text: str, name: str) -> None:
    all_ids = LETTERS[name].encode(text).ids
    with contextlib.suppress(EmptyText):
        encoded = TextEncoder(LETTERS[name], 6).encode_within(text, len(text))
        assert encoded is not None
        tokens = encoded.tokens
        assert tokens.read == len(encoded.ids)
        assert tokens.truncated == (len(all_ids) > 6)
        assert tokens.total == len(all_ids) if tokens.exact else tokens.read < tokens.total <= len(all_ids)


@pytest.mark.parametrize(
    ("words", "exact"), [(3, True), (12, True), (13, True), (25, True), (400, False), (9000, False)]
)
def test_tokens_of_a_text_of_words_are_counted_as_far_as_that_is_cheap(words: int, exact: bool) -> None:
    encoded = ENCODERS["words"].encode_within("ball " * words, 200)
    assert encoded is not None
    assert (encoded.tokens.read, encoded.tokens.exact) == (min(words, 12), exact)
    # 16,384 characters after the prefix are counted.
    assert encoded.tokens.total == min(words, 12 + 2 + 16_384 // 5 + 1)


def test_a_long_text_is_encoded_within_few_characters_unless_its_words_are_long() -> None:
    encoder = ENCODERS["words"]
    assert encoder.encode_within("ball " * 60, 100) is not None
    assert encoder.encode_within("x" * 60 + " " + "x" * 200, 100) is None


def test_special_tokens_count_towards_the_maximum() -> None:
    ids = ENCODERS["bytes"].encode("a long text")
    assert (len(ids), ids[0], ids[-1]) == (12, 1, 2)
    with pytest.raises(ValueError, match="adds 2 tokens to every text, which leaves no room for words in 2"):
        TextEncoder(bytes_tokenizer(), 2)


def test_truncation_and_padding_of_the_tokenizer_are_neither_used_nor_changed() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(1, direction="left")
    before = tokenizer.to_str()
    assert len(TextEncoder(tokenizer, 12).encode("ball goal vote")) == 3
    assert tokenizer.to_str() == before


def test_the_vocabulary_size_is_one_more_than_the_largest_id() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 1, "far": 40}, unk_token="[UNK]"))
    assert TextEncoder(tokenizer, 12).vocabulary_size == 41


def test_encoding_on_many_threads_gives_the_ids_of_one_thread() -> None:
    texts = [f"ball {'goal ' * (i % 15)} word{i} {'vote' if i % 2 else ''}" for i in range(400)]
    for encoder in ENCODERS.values():
        alone = [encoder.encode(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            for expected, ids in zip(alone, pool.map(encoder.encode, texts), strict=True):
                np.testing.assert_array_equal(ids, expected)


@given(sequences)
def test_padding_fills_up_to_the_longest(token_lists: list[list[int]]) -> None:
    arrays = [np.array(sequence, dtype=np.int64) for sequence in token_lists]
    tokens, lengths = pad_tokens(arrays)
    assert tokens.dtype == lengths.dtype == np.int64
    assert tokens.shape == (len(arrays), max(map(len, arrays), default=0))
    assert lengths.tolist() == [len(array) for array in arrays]
    for row, array in zip(tokens, arrays, strict=True):
        np.testing.assert_array_equal(row[: len(array)], array)
        assert (row[len(array) :] == PADDING).all()


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe", b"[" * 10_000, b'{"version": "9.0"}'])
def test_a_file_that_is_not_a_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerInvalid) as caught:
        TextEncoder.load(tmp_path / "tokenizer.json", 8)
    assert (caught.value.path, caught.value.where) == (tmp_path, "tokenizer.json")
    assert "cannot be used as a tokenizer" in caught.value.reason


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerInvalid, match=r"tokenizer\.json"):
        TextEncoder.load(tmp_path / "tokenizer.json", 8)


def test_a_tokenizer_that_fails_on_unknown_words_is_refused(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerInvalid, match=r"cannot encode every text: .*\[UNK\]"):
        TextEncoder.load(tmp_path / "tokenizer.json", 8)


@given(position=st.integers(0, 100_000), value=st.integers(0, 255))
def test_a_changed_byte_of_the_file_never_raises_anything_but_tokenizer_invalid(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    file = tmp_path_factory.mktemp("changed") / "tokenizer.json"
    for tokenizer in (tiny_tokenizer(), bytes_tokenizer()):
        data = bytearray(tokenizer.to_str().encode())
        data[position % len(data)] = value
        file.write_bytes(data)
        with contextlib.suppress(TokenizerInvalid):
            encoder = TextEncoder.load(file, 8)
            with contextlib.suppress(EmptyText):
                assert 1 <= len(encoder.encode("ball \ud800 xyzzy")) <= 8
