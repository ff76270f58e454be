"""ONNX classifiers of texts as users have them, with their tokenizer: exported from torch with dynamic axes."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from tests.training.support.texts_on_disk import TOPICS, sentences

MAX_TOKENS = 16


def make_tokenizer(*, own_limit: bool = True, words: int | None = None) -> Tokenizer:
    """A tokenizer of the words of the topics, after a special token [CLS]; padding has the largest id."""
    topic_words = sorted({word for topic in TOPICS for text in sentences(topic, 200, 1) for word in _words(text)})
    extra = [f"extra{i}" for i in range(words or 0)]
    ids = {token: i for i, token in enumerate(["[UNK]", "[CLS]", *topic_words, *extra, "[PAD]"])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.enable_padding(pad_id=ids["[PAD]"], pad_token="[PAD]")
    if own_limit:
        tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " .").split()


class TextNetwork(nn.Module):
    """Attention over embedded words and positions; logits `[N, 2]`. If `masked`, it ignores padding.

    Positions are counted by the id of padding, as RoBERTa does.
    """

    def __init__(self, tokenizer: Tokenizer, *, masked: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.padding = tokenizer.token_to_id("[PAD]")
        self.words = nn.Embedding(tokenizer.get_vocab_size(), 12)
        self.positions = nn.Embedding(MAX_TOKENS + 1, 12)
        self.types = nn.Embedding(2, 12)
        self.keys = nn.Linear(12, 1)
        self.classifier = nn.Linear(12, len(TOPICS))
        self.masked = masked

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        is_token = input_ids.ne(self.padding).long()
        values = self.words(input_ids) + 0.1 * self.positions(is_token.cumsum(dim=1) * is_token)
        if token_type_ids is not None:
            values = values + self.types(token_type_ids)
        weights = self.keys(values.tanh()).squeeze(2)
        if self.masked and attention_mask is not None:
            weights = weights.masked_fill(attention_mask == 0, -1e4)
        features = (weights.softmax(dim=1).unsqueeze(2) * values).sum(dim=1)
        logits: torch.Tensor = self.classifier(features)
        return logits

    def batch(self, tokenizer: Tokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask as the tokenizer pads them."""
        encodings = tokenizer.encode_batch(texts)
        ids, masks = ([getattr(encoding, name) for encoding in encodings] for name in ("ids", "attention_mask"))
        return torch.tensor(ids), torch.tensor(masks)

    def train_on(self, tokenizer: Tokenizer) -> "TextNetwork":
        """Train on the topics for 20 steps."""
        texts = [text for topic in TOPICS for text in sentences(topic, 50, 1)]
        targets = torch.arange(len(TOPICS)).repeat_interleave(50)
        ids, mask = self.batch(tokenizer, texts)
        optimizer = torch.optim.Adam(self.parameters(), 0.1)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self(ids, mask), targets).backward()
            optimizer.step()
        return self.eval()


def export_texts(
    network: TextNetwork,
    path: Path,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    *,
    dtype: torch.dtype = torch.int64,
    dynamic: bool = True,
    dynamo: bool = False,
) -> Path:
    """Write `network` with one of torch's exporters: the `inputs`, all `[N, L]` of `dtype`, and the output `scores`."""
    n, length = torch.export.Dim("batch"), torch.export.Dim("length", max=MAX_TOKENS)
    shapes: dict[str, Any] = {}
    if dynamic and dynamo:
        shapes["dynamic_shapes"] = tuple({0: n, 1: length} for _ in inputs)
    elif dynamic:
        shapes["dynamic_axes"] = {name: {0: "batch", 1: "length"} for name in inputs} | {"scores": {0: "batch"}}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network.eval(),
            tuple(torch.ones(2, 5, dtype=dtype) for _ in inputs),
            str(path),
            input_names=list(inputs),
            output_names=["scores"],
            dynamo=dynamo,
            external_data=False,
            verbose=False,
            **shapes,
        )
    return path


def write_old_text_classifier(path: Path, network: TextNetwork, opset: int) -> Path:
    """Write a classifier with the words and the last layer of `network`: the mean of a text's words, in old operators.

    The attributes of Squeeze, Unsqueeze and ReduceSum became inputs in opset 13.
    """
    inputs = ("input_ids", "attention_mask")
    constants = {
        "words": network.words.weight.detach().numpy(),
        "weights": network.classifier.weight.detach().numpy(),
        "bias": network.classifier.bias.detach().numpy(),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["values"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask"], ["column"], axes=[2]),
        helper.make_node("Mul", ["values", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked"], ["sum"], axes=[1], keepdims=0),
        helper.make_node("ReduceSum", ["mask"], ["count"], axes=[1], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"]) for name in inputs],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(TOPICS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path
