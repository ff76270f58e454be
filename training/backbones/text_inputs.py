"""The inputs of a text backbone: computed inside its graph from the token ids and lengths that a bundle takes."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from training.data.token_ids import TEXT_INPUTS
from training.errors import GraphError
from training.onnx_graphs import replace_content
from training.text_roles import Role, is_of_token_ids, role_of

_TOKENS, _LENGTHS = TEXT_INPUTS
_MASK, _TYPES = "text/mask", "text/types"
_TENSORS: dict[Role, str] = {"tokens": _TOKENS, "mask": _MASK, "lengths": _LENGTHS, "types": _TYPES}
_REMEDY = "Give a model of token ids [N, L] and, optionally, attention_mask [N, L], token_type_ids [N, L], lengths [N]"
_CONSTANTS = {"zero": 0, "one": 1, "length-axis": 1, "column": [-1, 1], "token-axis": [1], "last-axis": [2]}


def takes_texts(inputs: Sequence[ValueInfoProto]) -> bool:
    """Whether `inputs` are those of a text model: one is a tensor of integers with two axes."""
    return any(is_of_token_ids(_axes(value), value.type.tensor_type.elem_type) for value in inputs)


def prepend_text_inputs(graph: GraphProto, names: Sequence[str], source: str) -> None:
    """Make `tokens` int64 `[N, L]` and `lengths` int64 `[N]` the inputs of `graph`.

    Args:
        graph: The graph of a text model.
        names: The names of its inputs in its file, which tell the meaning of each.
        source: The name of the file, for errors.

    Raises:
        GraphError: An input has a shape or type that a text does not give.
    """
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, dtype=np.int64), f"text/{name}") for name, value in _CONSTANTS.items()
    )
    nodes = [
        helper.make_node("Shape", [_TOKENS], ["text/shape"]),
        helper.make_node("Gather", ["text/shape", "text/length-axis"], ["text/length"]),
        helper.make_node("Range", ["text/zero", "text/length", "text/one"], ["text/positions"]),
        helper.make_node("Reshape", [_LENGTHS, "text/column"], ["text/ends"]),
        helper.make_node("Less", ["text/positions", "text/ends"], [_MASK]),
        helper.make_node("Sub", [_TOKENS, _TOKENS], [_TYPES]),
    ]
    for value, name in zip(graph.input, names, strict=True):
        kind = value.type.tensor_type.elem_type
        nodes.append(helper.make_node("Cast", [_meaning(value, name, source)], [value.name], to=kind))
    replace_content(graph.node, [*nodes, *graph.node])
    axes: dict[str, list[str | int]] = {_TOKENS: ["N", "L"], _LENGTHS: ["N"]}
    replace_content(
        graph.input, [helper.make_tensor_value_info(name, TensorProto.INT64, axes[name]) for name in TEXT_INPUTS]
    )


def mean_over_tokens(vectors: str, output: str) -> list[NodeProto]:
    """Nodes from one vector per token `[N, L, D]` to their mean over the tokens of each text `[N, D]`.

    The graph must be of opset 13 or later, with the inputs of `prepend_text_inputs`.
    """
    return [
        helper.make_node("Cast", [vectors], ["text/vectors"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [_MASK, "text/last-axis"], ["text/mask-column"]),
        helper.make_node("Cast", ["text/mask-column"], ["text/weights"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["text/vectors", "text/weights"], ["text/weighted"]),
        helper.make_node("ReduceSum", ["text/weighted", "text/token-axis"], ["text/sum"], keepdims=0),
        helper.make_node("ReduceSum", ["text/weights", "text/token-axis"], ["text/count"], keepdims=0),
        helper.make_node("Div", ["text/sum", "text/count"], [output]),
    ]


def _meaning(value: ValueInfoProto, name: str, source: str) -> str:
    """The tensor that an input gets."""
    role = role_of(name, _axes(value), value.type.tensor_type.elem_type)
    if role is None:
        raise GraphError(source, f"its input '{name}' is none that a text gives", _REMEDY)
    return _TENSORS[role]


def _axes(value: ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)
