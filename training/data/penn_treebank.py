r"""Ordinary text in the form of Mikolov's Penn Treebank, as a normaliser that is kept in the tokenizer.json.

That corpus is in lower case, has N for every number, no punctuation and clitics apart ("it 's", "do n't"). A language
model trained on it would find any other text improbable for its commas alone. So every text, the corpus's own included,
goes through the same steps, and what is left to tell texts apart is what they say.

The parts of the corpus that are at hand do not agree on three things, and ordinary text cannot be told to follow: these
are made alike everywhere, one step further than Mikolov went.
- A full stop at a word's end goes, after abbreviations too ("mr", "u.s").
- A percent sign is N, as in Mikolov's files ("rose N N" was "rose 5 %").
- An apostrophe at a word's edge goes, a plural's possessive too.

`<unk>` becomes U+FFFD, the replacement character: one symbol that no vocabulary here holds. By words it is the unknown
token, as any rare word is. By characters it is one unknown character: five letters that always follow each other would
be five symbols at no cost, in those texts alone that were published with `<unk>`.
"""

from tokenizers import Regex, normalizers

UNREADABLE = "\ufffd"
"""What stands for a word that cannot be read."""

_JOINS = (("<unk>", UNREADABLE), (" @-@ ", "-"), (" @.@ ", "."), (" @,@ ", ","), (r"\/", "/"), ("\u00a3", "#"))
"""Published corpora's own marks: of an unknown word; WikiText's of split words; Penn Treebank's of a slash, a pound."""

# Every pattern is linear in the text, whatever the text: repetition is possessive and starts at one place a run.
_END = r"(?![\p{L}\p{N}])"
_EDGE = r"[^\p{L}\p{N}\s\ufffd$#&%s]++"
_LEADING, _TRAILING = _EDGE.replace("%s", ""), _EDGE.replace("%s", "%")
_STEPS_BEFORE_CASE = (
    # Nothing but punctuation: a text all the same, of one word that says nothing.
    (r"\A(?=\s*+\S)[^\p{L}\p{N}\ufffd]++\z", UNREADABLE),
    # The corpus's own N, before it becomes a letter like any other.
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
    """The normaliser: what it makes of a text has words apart by single spaces; blank only where the text is."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            *(normalizers.Replace(found, made) for found, made in _JOINS),
            *(normalizers.Replace(Regex(pattern), made) for pattern, made in _STEPS_BEFORE_CASE),
            normalizers.Lowercase(),
            # The wire that the corpus came over had no accents.
            normalizers.NFD(),
            normalizers.StripAccents(),
            *(normalizers.Replace(Regex(pattern), made) for pattern, made in _STEPS),
            normalizers.Strip(),
        ]
    )
