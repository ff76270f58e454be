r"""A normaliser that converts ordinary text to the form of Mikolov's Penn Treebank; it is saved in the tokenizer.json.

The corpus is in lower case, writes every number as N, has no punctuation and separates clitics ("it 's", "do n't"). A
language model trained on it finds other text improbable because of its commas alone. Therefore all texts, including the
corpus, are normalised in the same way: scores then depend on the content of a text, not on its form.

The available parts of the corpus differ in three details. The normaliser removes these differences, too:
- A full stop at the end of a word is removed, also after abbreviations ("mr", "u.s").
- A percent sign is N, as in Mikolov's files ("rose N N" was "rose 5 %").
- An apostrophe at the edge of a word is removed, also that of a plural's possessive.

`<unk>` becomes U+FFFD, the replacement character, which is in no vocabulary. In a model of words it is the unknown
token, as any rare word. In a model of characters it is one unknown character: the five characters of `<unk>` always
occur together and would be five symbols of almost no bits, only in texts that were published with `<unk>`.
"""

from tokenizers import Regex, normalizers

UNREADABLE = "\ufffd"
"""The replacement of an unreadable word."""

_JOINS = (("<unk>", UNREADABLE), (" @-@ ", "-"), (" @.@ ", "."), (" @,@ ", ","), (r"\/", "/"), ("\u00a3", "#"))
"""Special marks of published corpora: unknown words, WikiText's split words, Penn Treebank's slash and pound sign."""

# Every pattern takes linear time for any text: repetition is possessive, and a run matches at one position only.
_END = r"(?![\p{L}\p{N}])"
_EDGE = r"[^\p{L}\p{N}\s\ufffd$#&%s]++"
_LEADING, _TRAILING = _EDGE.replace("%s", ""), _EDGE.replace("%s", "%")
_STEPS_BEFORE_CASE = (
    # A text of punctuation alone becomes one unreadable word, so that it is not empty.
    (r"\A(?=\s*+\S)[^\p{L}\p{N}\ufffd]++\z", UNREADABLE),
    # The corpus's N for numbers, before the text becomes lower case.
    (r"(?<!\S)N(?!\S)", "0"),
)
_STEPS = (
    ("[\u2018\u2019\u02bc`]", "'"),
    ("[\u2010\u2212]", "-"),
    ("[\u2012-\u2015]|--++|\\.\\.++", " "),
    (r"""["!?()\[\]{}|*<>=_~^\\]""", " "),
    (r"[,;:](?![0-9])|(?<![0-9])[,;:]", " "),
    (r"\$(?=[0-9.])", "$ "),
    (r"#(?=[0-9.])", "# "),
    (rf"(?<![\p{{L}}\p{{N}}])cannot{_END}", "can not"),
    # "don't", and WikiText's "don 't".
    (rf"n ?'t{_END}", " n't"),
    *((rf"'{clitic}{_END}", f" '{clitic}") for clitic in ("s", "re", "ve", "ll", "d", "m")),
    (r"(?<!\S)%(?!\S)", "0"),
    (rf"(?<!\S)(?!'(?:s|re|ve|ll|d|m)(?!\S)){_LEADING}", ""),
    (rf"(?<!{_TRAILING.removesuffix('++')}){_TRAILING}(?!\S)", ""),
    (r"%(?!\S)", " 0"),
    (r"(?<!\S)\p{N}[\p{N}.,:/\u2044]*+(?!\S)", "N"),
    (r"\s++", " "),
)


def penn_treebank() -> normalizers.Normalizer:
    """The normaliser. Its output has words separated by single spaces and is blank only for a blank text."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            *(normalizers.Replace(mark, replacement) for mark, replacement in _JOINS),
            *(_replace(pattern, replacement) for pattern, replacement in _STEPS_BEFORE_CASE),
            normalizers.Lowercase(),
            # The corpus was published without accents.
            normalizers.NFD(),
            normalizers.StripAccents(),
            *(_replace(pattern, replacement) for pattern, replacement in _STEPS),
            normalizers.Strip(),
        ]
    )


def _replace(pattern: str, replacement: str) -> normalizers.Replace:
    return normalizers.Replace(Regex(pattern), replacement)
