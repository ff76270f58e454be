"""The text adapter: from a bundle's token ids and lengths to the ids and masks that an ONNX classifier takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from bundle import TextEncoder, TextInput
from training.data import NO_TOKEN, DataLocations, TextReader
from training.data.token_ids import TEXT_INPUTS, text_batch
from training.errors import DataError, GraphError
from training.text_roles import Role, is_of_token_ids, role_of
from training.wrapping.input_adapter import PREFIX, Feed
from training.wrapping.onnx_classifier import GraphInput

_FILE = "tokenizer.json"
_TOKENS, _LENGTHS = TEXT_INPUTS
MIN_OPSET = 11
"""The first opset with the operators Range and Pad of a computed size."""
_PADDING_TOKENS = ("[PAD]", "<pad>", "<PAD>", "PAD", "<|pad|>")
_SUPPORTED = (
    "Inputs can be token ids [N, L] and, optionally, attention_mask [N, L], token_type_ids [N, L] and lengths [N]"
)


@dataclass(frozen=True)
class TextAdapter:
    """Makes the classifier's ids and masks from token ids and lengths.

    Attributes:
        spec: the bundle's input.
        encoder: the tokenizer.
        tokenizer: the tokenizer's file.
        padding: the classifier's id of padding.
        roles: the classifier's inputs, in their order, with their meaning.
        length: the number of tokens that the classifier takes, if it is fixed.
    """

    spec: TextInput
    encoder: TextEncoder
    tokenizer: Path
    padding: int
    roles: tuple[tuple[GraphInput, Role], ...]
    length: int | None = None

    options = "--tokenizer and --max-tokens"

    @property
    def remedy(self) -> str:
        """How to export a classifier whose logits do not depend on padding."""
        axes = (
            "torch.onnx.export(..., dynamic_axes={'input_ids': {0: 'N', 1: 'L'}, 'attention_mask': {0: 'N', 1: 'L'}})"
        )
        if any(role in ("mask", "lengths") for _, role in self.roles):
            return f"Export it with a dynamic batch and length, in evaluation mode: {axes}"
        return f"It takes neither attention_mask nor lengths, so padding is a part of the text; export it: {axes}"

    @property
    def files(self) -> Mapping[str, Path]:
        """The tokenizer's file."""
        return {_FILE: self.tokenizer}

    def reader(self, locations: DataLocations, *, skip_broken: bool = False) -> TextReader:
        """A reader of texts as token ids of the tokenizer."""
        return TextReader(self.encoder, locations, skip_broken=skip_broken)

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Token ids `[N, L]`, L the batch's longest text, and lengths `[N]`."""
        return text_batch(rows)

    def probe_rows(self) -> Sequence[NDArray[np.int32]]:
        """A text of the largest ids and the most tokens, and then a text of two tokens.

        Classifiers with smaller embedding tables fail on the first.
        """
        ids = self.encoder.vocabulary_size - 1 - np.arange(self.spec.max_tokens)
        longest = np.asarray(ids % self.encoder.vocabulary_size, dtype=np.int32)[None]
        short = np.full_like(longest, NO_TOKEN)
        short[:, :2] = longest[:, :2]
        return longest, short

    def feed(self, rows: NDArray[Any]) -> Feed:
        """The classifier's inputs for stored rows int32 `[N, T]`."""
        tokens, lengths = (tensor.numpy() for tensor in text_batch(torch.from_numpy(rows)))
        if self.length is not None:
            tokens = np.pad(tokens, ((0, 0), (0, self.length - tokens.shape[1])))
        mask = np.arange(tokens.shape[1]) < lengths[:, None]
        values: dict[Role, NDArray[Any]] = {
            "tokens": np.where(mask, tokens, self.padding),
            "mask": mask,
            "lengths": lengths,
            "types": np.zeros_like(tokens),
        }
        return {
            target.name: values[role].astype(helper.tensor_dtype_to_np_dtype(target.elem_type))
            for target, role in self.roles
        }

    @property
    def graph(self) -> GraphProto:
        """Padding and masks, from `tokens` int64 `[N, L]` and `lengths` int64 `[N]` to the classifier's inputs."""
        constants: dict[str, Any] = {"column": [-1, 1], "length-axis": 1, "zero": 0, "one": 1, "padding": self.padding}
        names = {name: f"{PREFIX}{name}" for name in (*constants, "shape", "length", "positions", "ends", "mask")}
        filled, types, tokens = f"{PREFIX}filled", f"{PREFIX}types", _TOKENS
        nodes = []
        if self.length is not None:
            constants |= {"full": [self.length], "no-padding": [0, 0, 0], "own-axis": [1]}
            names |= {name: f"{PREFIX}{name}" for name in ("full", "no-padding", "own-axis", "padded")}
            parts = [f"{PREFIX}{name}" for name in ("own-shape", "own-length", "missing", "pads")]
            nodes += [
                helper.make_node("Shape", [_TOKENS], [parts[0]]),
                helper.make_node("Gather", [parts[0], names["own-axis"]], [parts[1]]),
                helper.make_node("Sub", [names["full"], parts[1]], [parts[2]]),
                helper.make_node("Concat", [names["no-padding"], parts[2]], [parts[3]], axis=0),
                helper.make_node("Pad", [_TOKENS, parts[3]], [names["padded"]]),
            ]
            tokens = names["padded"]
        nodes += [
            helper.make_node("Shape", [tokens], [names["shape"]]),
            helper.make_node("Gather", [names["shape"], names["length-axis"]], [names["length"]]),
            helper.make_node("Range", [names["zero"], names["length"], names["one"]], [names["positions"]]),
            helper.make_node("Reshape", [_LENGTHS, names["column"]], [names["ends"]]),
            helper.make_node("Less", [names["positions"], names["ends"]], [names["mask"]]),
            helper.make_node("Where", [names["mask"], tokens, names["padding"]], [filled]),
            helper.make_node("Sub", [tokens, tokens], [types]),
        ]
        values: dict[Role, str] = {"tokens": filled, "mask": names["mask"], "lengths": _LENGTHS, "types": types}
        outputs = [
            helper.make_tensor_value_info(f"{PREFIX}{role}-input", target.elem_type, None)
            for target, role in self.roles
        ]
        nodes += [
            helper.make_node("Cast", [values[role]], [output.name], to=target.elem_type)
            for (target, role), output in zip(self.roles, outputs, strict=True)
        ]
        axes = {_TOKENS: ["N", "L"], _LENGTHS: ["N"]}
        return helper.make_graph(
            nodes,
            "text-adapter",
            [helper.make_tensor_value_info(name, TensorProto.INT64, axes[name]) for name in TEXT_INPUTS],
            outputs,
            [numpy_helper.from_array(np.asarray(value, np.int64), names[name]) for name, value in constants.items()],
        )


def text_adapter(
    inputs: Sequence[GraphInput], tokenizer: Path, *, max_tokens: int | None, announce: Callable[[str], None]
) -> TextAdapter:
    """The adapter for a classifier of texts; the meaning of its inputs comes from their names and shapes.

    Args:
        inputs: the inputs that its logits depend on, in an opset of at least `MIN_OPSET`.
        tokenizer: its tokenizer's file.
        max_tokens: the tokens that it reads of a text; None for the tokenizer's own limit.
        announce: gets a line for each guess.

    Raises:
        GraphError: if an input is none of a text's.
        DataError: if there is no limit of tokens.
        TokenizerInvalid: if the file is not a tokenizer that encodes every text.
    """
    roles = tuple(_roles(inputs))
    length = _fixed_length(roles)
    announce("inputs: " + ", ".join(f"{target.name} as {role}" for target, role in roles))
    # Loads it first for the errors that this raises.
    TextEncoder.load(tokenizer, 2**16)
    loaded = Tokenizer.from_file(str(tokenizer))
    limits = [limit for limit in (max_tokens or _token_limit(loaded), length) if limit is not None]
    if not limits:
        raise DataError(
            "--max-tokens", "is missing, and the tokenizer has no limit", "Give the limit that the model was made for"
        )
    limit = min(limits)
    encoder = TextEncoder.load(tokenizer, limit)
    padding = _padding_id(loaded)
    filled = "" if length is None else f", filled up to {length}"
    announce(f"texts: up to {limit} tokens{filled}, padding has the id {padding}; {tokenizer.name}")
    return TextAdapter(TextInput(tokenizer=_FILE, max_tokens=limit), encoder, tokenizer, padding, roles, length)


def takes_texts(inputs: Sequence[GraphInput]) -> bool:
    """Whether a graph with `inputs` takes token ids: all inputs are integers, or masks next to them."""
    return any(is_of_token_ids(len(value.shape), value.elem_type) for value in inputs)


def _fixed_length(roles: Sequence[tuple[GraphInput, Role]]) -> int | None:
    """The number of tokens in the shapes of the inputs; None if it is dynamic."""
    lengths = {value.shape[1] for value, _ in roles if len(value.shape) == 2}
    if len(lengths) > 1:
        names = ", ".join(f"{value.name} {list(value.shape)}" for value, _ in roles)
        raise GraphError("the graph", f"its inputs have different lengths ({names})", _SUPPORTED)
    return lengths.pop()


def _roles(inputs: Sequence[GraphInput]) -> Iterator[tuple[GraphInput, Role]]:
    roles = set[Role]()
    for value in inputs:
        role = _role(value)
        if role in roles:
            raise GraphError(value.name, f"is a second input of {role}", _SUPPORTED)
        roles.add(role)
        yield value, role
    if "tokens" not in roles:
        raise GraphError("the graph", "takes no token ids", _SUPPORTED)


def _role(value: GraphInput) -> Role:
    axes = len(value.shape)
    if (role := role_of(value.name, axes, value.elem_type)) is not None:
        return role
    kind = TensorProto.DataType.Name(value.elem_type).lower()
    raise GraphError(value.name, f"is an input of {kind} with {axes} dimensions that no text gives", _SUPPORTED)


def _token_limit(tokenizer: Tokenizer) -> int | None:
    truncation = tokenizer.truncation
    return None if truncation is None else int(truncation["max_length"])


def _padding_id(tokenizer: Tokenizer) -> int:
    """The id that the tokenizer pads with, else that of a token with a usual name for padding, else 0."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    return next((id_ for token in _PADDING_TOKENS if (id_ := tokenizer.token_to_id(token)) is not None), 0)
