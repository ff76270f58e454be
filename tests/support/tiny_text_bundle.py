"""A small text bundle, made in milliseconds: each word votes for a topic in an ONNX graph, calibrated by running it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bundle import (
    Calibration,
    CalibrationSpec,
    LikelihoodSpec,
    ScoreOutput,
    TextEncoder,
    TextInput,
    get_score,
    pad_tokens,
    save_calibrations,
    seal_bundle,
)
from tests.support.tiny_bundle import TINY_SCORES, score_nodes, score_outputs

TOPICS = {
    "sports": ("ball", "goal", "team", "match"),
    "politics": ("vote", "law", "senate", "minister"),
    "science": ("atom", "cell", "proof", "planet"),
}
"""The topics of the tiny text bundle, with their words."""

COMMON_WORDS = ("the", "a", "of", "and", "is")
SAMPLE = "The team won the match: a goal, and the ball is theirs.\n"
"""The content of the bundle's `sample.txt`."""

_UNKNOWN = 1


def make_tiny_text_bundle(
    directory: Path,
    *,
    name: str = "topics",
    version: str = "1",
    task: str = "classification",
    max_tokens: int = 32,
    n_calibration: int = 200,
    sample: str | None = SAMPLE,
    seed: int = 0,
) -> Path:
    """Write the bundle `directory`/`name`/`version` and return its folder.

    A classifier predicts one of `TOPICS` by the mean vote of a text's words and has the scores of the tiny image
    bundle. For the task "language-model" there are no labels and two scores, `bpw`, the mean bits of the words, and
    `kl_uniform`, which ranks the texts in the same way.
    """
    folder = directory / name / version
    folder.mkdir(parents=True)
    classifies = task == "classification"
    scores = TINY_SCORES if classifies else ("bpw", "kl_uniform")
    model = tiny_text_graph(classifies=classifies)
    onnx.save(model, folder / "model.onnx")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    encoder = TextEncoder.load(folder / "tokenizer.json", max_tokens)
    tokens, lengths = pad_tokens(encoder.encode_batch(tiny_texts(n_calibration, seed=seed)))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(scores), {"tokens": tokens, "lengths": lengths})
    save_calibrations(
        folder / "calibration.npz",
        {
            score: Calibration.from_scores(get_score(score).anomaly(value))
            for score, value in zip(scores, values, strict=True)
        },
    )
    if sample is not None:
        (folder / "sample.txt").write_text(sample, encoding="utf-8")
    seal_bundle(
        folder,
        {
            "name": name,
            "version": version,
            "description": "A topic classifier for tests." if classifies else "A model of words for tests.",
            "modality": "text",
            "task": task,
            "input": TextInput(tokenizer="tokenizer.json", max_tokens=max_tokens),
            "labels": list(TOPICS) if classifies else [],
            "scores": [ScoreOutput(name=score, output=score) for score in scores],
            "default_score": scores[0],
            "default_score_reason": "the first one, for tests",
            "likelihood": None if classifies else LikelihoodSpec(per="word", parts="bits"),
            "calibration": CalibrationSpec(file="calibration.npz", n=n_calibration, source="random words", alpha=0.05),
            "created": datetime(2026, 1, 1, tzinfo=UTC),
        },
    )
    return folder


def tiny_tokenizer() -> Tokenizer:
    """Lower-case words and punctuation; everything else is `[UNK]`."""
    words = [*COMMON_WORDS, *(word for words in TOPICS.values() for word in words)]
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def tiny_texts(n: int, *, seed: int = 0, topics: Sequence[str] = tuple(TOPICS)) -> list[str]:
    """In-distribution texts of 1 to 40 words, mostly of one topic."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(rng.choice([*TOPICS[topic] * 2, *COMMON_WORDS, "unheard"], rng.integers(1, 41)))
        for topic in rng.choice(list(topics), n)
    ]


def tiny_text_graph(*, classifies: bool = True) -> onnx.ModelProto:
    """The bundle's graph, from `tokens` int64 `[N, L]` and `lengths` int64 `[N]` to scores `[N]`.

    `[PAD]` has the largest vote, so that scores that depend on padding differ.
    """
    table = _votes() if classifies else _surprises()
    constants: dict[str, NDArray[np.generic]] = {
        "table": table,
        "zero": np.array(0, dtype=np.int64),
        "one": np.array(1, dtype=np.int64),
        "axis_1": np.array([1], dtype=np.int64),
        "axis_2": np.array([2], dtype=np.int64),
        "class_axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["tokens"], ["longest_1d"], start=1, end=2),
        helper.make_node("Squeeze", ["longest_1d"], ["longest"]),
        helper.make_node("Range", ["zero", "longest", "one"], ["positions"]),
        helper.make_node("Unsqueeze", ["lengths", "axis_1"], ["ends"]),
        helper.make_node("Less", ["positions", "ends"], ["is_word"]),
        helper.make_node("Cast", ["is_word"], ["mask_2d"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask_2d", "axis_2"], ["mask"]),
        helper.make_node("Gather", ["table", "tokens"], ["votes"]),
        helper.make_node("Mul", ["votes", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis_1"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["ends"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sum", "counts"], ["logits" if classifies else "surprise"]),
    ]
    if classifies:
        nodes += score_nodes()
        outputs = score_outputs()
    else:
        nodes += [
            helper.make_node("Squeeze", ["surprise", "axis_1"], ["bpw"]),
            helper.make_node("Neg", ["bpw"], ["kl_uniform"]),
            helper.make_node("Squeeze", ["masked", "axis_2"], ["of_words"]),
            # The end of a text is not counted and has no bits.
            helper.make_node("Pad", ["of_words", "one_column"], ["bits"]),
        ]
        constants["one_column"] = np.array([0, 0, 0, 1], dtype=np.int64)
        outputs = [
            helper.make_tensor_value_info("bpw", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("kl_uniform", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("bits", TensorProto.FLOAT, ["N", "M"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny-text",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["N"]),
        ],
        outputs,
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _votes() -> NDArray[np.float32]:
    """The logits `[V, 3]` of each word."""
    vocabulary = tiny_tokenizer().get_vocab()
    table = np.zeros((len(vocabulary), len(TOPICS)), dtype=np.float32)
    table[0] = 50
    for column, words in enumerate(TOPICS.values()):
        for word in words:
            table[vocabulary[word], column] = 8
    return table


def _surprises() -> NDArray[np.float32]:
    """The bits `[V, 1]` of each word; unknown words have the most."""
    table = np.linspace(2, 6, tiny_tokenizer().get_vocab_size(), dtype=np.float32)[:, None]
    table[0], table[_UNKNOWN] = 1000, 20
    return table
