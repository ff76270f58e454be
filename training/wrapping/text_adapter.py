"""The text plan: how a bundle's token ids and lengths become the ids and masks that a foreign graph takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from tokenizers import Tokenizer

from bundle import TextEncoder, TextInput
from training.data import DataLocations, TextReader
from training.data.token_ids import TEXT_INPUTS, text_batch
from training.errors import DataError, GraphError
from training.wrapping.input_adapter import Feed
from training.wrapping.original import GraphInput, Original, opset_of

Role = Literal["tokens", "mask", "lengths", "types"]

_FILE = "tokenizer.json"
_PREFIX = "ood-input/"
_TOKENS, _LENGTHS = TEXT_INPUTS
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_MIN_OPSET = 11
"""Of the operator Range."""
_PADDING_TOKENS = ("[PAD]", "<pad>", "<PAD>", "PAD", "<|pad|>")
_SUPPORTED = (
    "wrap takes token ids [N, L], and of attention_mask [N, L], token_type_ids [N, L] and lengths [N] what there is"
)


@dataclass(frozen=True)
class TextAdapter:
    """`spec` is the bundle's input, `roles` what each of the foreign graph's inputs is, `padding` its id of padding.

    `encoder` is the tokenizer in the file `tokenizer`.
    """

    spec: TextInput
    encoder: TextEncoder
    tokenizer: Path
    padding: int
    roles: tuple[tuple[GraphInput, Role], ...]

    options = "--tokenizer and --max-tokens"

    @property
    def remedy(self) -> str:
        """How to export a graph that padding does not change."""
        axes = (
            "torch.onnx.export(..., dynamic_axes={'input_ids': {0: 'N', 1: 'L'}, 'attention_mask': {0: 'N', 1: 'L'}})"
        )
        if any(role in ("mask", "lengths") for _, role in self.roles):
            return f"Export it with a dynamic batch and length, in evaluation mode: {axes}"
        return f"It takes neither attention_mask nor lengths, so that it cannot know what padding is; export it: {axes}"

    @property
    def inputs(self) -> list[ValueInfoProto]:
        """`tokens` `[N, L]` and `lengths` `[N]`."""
        axes = {_TOKENS: ["N", "L"], _LENGTHS: ["N"]}
        return [helper.make_tensor_value_info(name, TensorProto.INT64, axes[name]) for name in TEXT_INPUTS]

    @property
    def files(self) -> Mapping[str, Path]:
        """The tokenizer."""
        return {_FILE: self.tokenizer}

    def reader(self, locations: DataLocations) -> TextReader:
        """Reads texts with the tokenizer."""
        return TextReader(self.encoder, locations)

    def prepare(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Token ids `[N, L]`, L the batch's longest text, and lengths `[N]`."""
        return text_batch(rows)

    @property
    def longest_row(self) -> NDArray[np.int32]:
        """One text `[1, max_tokens]` of the ids from the largest down, which shows tables that are too small."""
        ids = self.encoder.vocabulary_size - 1 - np.arange(self.spec.max_tokens)
        return np.asarray(ids % self.encoder.vocabulary_size, dtype=np.int32)[None]

    def feed(self, rows: NDArray[Any]) -> Feed:
        """The foreign graph's inputs for stored rows int32 `[N, T]`."""
        tokens, lengths = (tensor.numpy() for tensor in text_batch(torch.from_numpy(rows)))
        mask = np.arange(tokens.shape[1]) < lengths[:, None]
        values: dict[Role, NDArray[Any]] = {
            "tokens": np.where(mask, tokens, self.padding),
            "mask": mask,
            "lengths": lengths,
            "types": np.zeros_like(tokens),
        }
        return {
            each.name: values[role].astype(helper.tensor_dtype_to_np_dtype(each.elem_type)) for each, role in self.roles
        }

    def nodes(self, targets: Mapping[str, str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """Nodes and constants that compute the foreign graph's inputs from `tokens` and `lengths`."""
        constants = {"column": [-1, 1], "length-axis": 1, "zero": 0, "one": 1, "padding": self.padding}
        names = {name: f"{_PREFIX}{name}" for name in (*constants, "shape", "length", "positions", "ends", "mask")}
        filled, types = f"{_PREFIX}filled", f"{_PREFIX}types"
        nodes = [
            helper.make_node("Shape", [_TOKENS], [names["shape"]]),
            helper.make_node("Gather", [names["shape"], names["length-axis"]], [names["length"]]),
            helper.make_node("Range", [names["zero"], names["length"], names["one"]], [names["positions"]]),
            helper.make_node("Reshape", [_LENGTHS, names["column"]], [names["ends"]]),
            helper.make_node("Less", [names["positions"], names["ends"]], [names["mask"]]),
            helper.make_node("Where", [names["mask"], _TOKENS, names["padding"]], [filled]),
            helper.make_node("Sub", [_TOKENS, _TOKENS], [types]),
        ]
        values: dict[Role, str] = {"tokens": filled, "mask": names["mask"], "lengths": _LENGTHS, "types": types}
        nodes += [
            helper.make_node("Cast", [values[role]], [targets[each.name]], to=each.elem_type)
            for each, role in self.roles
        ]
        return nodes, [
            numpy_helper.from_array(np.array(value, dtype=np.int64), names[name]) for name, value in constants.items()
        ]


def text_adapter(
    original: Original, tokenizer: Path, *, max_tokens: int | None, announce: Callable[[str], None]
) -> TextAdapter:
    """Read off the graph's inputs what each of them is; what was guessed is announced.

    `max_tokens` is the tokenizer's own limit where None. Raises GraphError for inputs that are none of a text's,
    DataError for a missing limit, TokenizerInvalid.
    """
    if 0 < opset_of(original.model) < _MIN_OPSET:
        reason = f"its opset is {opset_of(original.model)}, older than {_MIN_OPSET}"
        raise GraphError("the graph", reason, "Convert it first (onnx.version_converter.convert_version)")
    roles = tuple(_roles(original.inputs))
    announce("inputs: " + ", ".join(f"{each.name} as {role}" for each, role in roles))
    longest = max_tokens or _own_limit(tokenizer)
    if longest is None:
        raise DataError(
            "--max-tokens", "is missing, and the tokenizer has no limit", "Give what the model was made for"
        )
    encoder = TextEncoder.load(tokenizer, longest)
    padding = _padding(tokenizer)
    announce(f"texts: up to {longest} tokens, padding has the id {padding}")
    return TextAdapter(TextInput(tokenizer=_FILE, max_tokens=longest), encoder, tokenizer, padding, roles)


def _roles(inputs: Sequence[GraphInput]) -> Iterator[tuple[GraphInput, Role]]:
    taken = set[Role]()
    for each in inputs:
        role = _role(each)
        if role in taken:
            raise GraphError(each.name, f"is a second input of {role}", _SUPPORTED)
        if any(dimension is not None for dimension in each.shape):
            shown = ", ".join("?" if dimension is None else str(dimension) for dimension in each.shape)
            raise GraphError(
                each.name,
                f"its shape [{shown}] is fixed",
                "Export it with a dynamic batch and length (dynamic_shapes or dynamic_axes)",
            )
        taken.add(role)
        yield each, role
    if "tokens" not in taken:
        raise GraphError("the graph", "takes no token ids", _SUPPORTED)


def _role(given: GraphInput) -> Role:
    name, axes = given.name.lower(), len(given.shape)
    if axes == 1 and given.elem_type in _INTEGERS:
        return "lengths"
    if axes == 2 and "mask" in name:
        return "mask"
    if axes == 2 and given.elem_type in _INTEGERS and "position" not in name:
        return "types" if "type" in name or "segment" in name else "tokens"
    kind = TensorProto.DataType.Name(given.elem_type).lower()
    raise GraphError(given.name, f"is an input of {kind} with {axes} dimensions that no text gives", _SUPPORTED)


def _own_limit(tokenizer: Path) -> int | None:
    truncation = _load(tokenizer).truncation
    return None if truncation is None else int(truncation["max_length"])


def _padding(tokenizer: Path) -> int:
    """The id that the tokenizer itself pads with, else that of a token known to be for padding, else 0."""
    loaded = _load(tokenizer)
    if loaded.padding is not None:
        return int(loaded.padding["pad_id"])
    return next((found for token in _PADDING_TOKENS if (found := loaded.token_to_id(token)) is not None), 0)


def _load(tokenizer: Path) -> Tokenizer:
    # For the errors that it raises.
    TextEncoder.load(tokenizer, 2**16)
    return Tokenizer.from_file(str(tokenizer))
