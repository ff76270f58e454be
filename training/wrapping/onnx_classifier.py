"""The ONNX classifier to be wrapped: read from its file, and reduced to the nodes that its outputs depend on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.inliner import inline_local_functions

from bundle import LOGIT_SCORES, Precision
from training.errors import GraphError
from training.onnx_graphs import (
    opset_of,
    prune,
    read_file,
    replace_content,
    strip_source_locations,
    tensors_of,
    with_opset,
)
from training.wrapping.head_search import add_float_logits
from training.wrapping.unsupported_nodes import refuse_unsupported

_MIN_OPSET, _MIN_IR = 7, 8
_CONVERTED_OPSET = 13
_EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_IMAGE_AXES, _TEXT_AXES = 4, 2


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: its name.
        elem_type: its type, a `TensorProto.DataType`.
        shape: its dimensions, None where dynamic.
    """

    name: str
    elem_type: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class OwnOutput:
    """An output of the classifier itself, which a wrapped graph keeps beside the scores.

    Attributes:
        name: its name in the classifier.
        tensor: the tensor in the graph that holds it.
        elem_type: its type, a `TensorProto.DataType`.
        shape: its shape for one input, without the batch.
    """

    name: str
    tensor: str
    elem_type: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OnnxClassifier:
    """A classifier of any origin: a graph with its weights, from `inputs` to `logits`, `features` and `outputs`.

    Attributes:
        model: the graph.
        inputs: its inputs.
        logits: the tensor with the logits, `[N, K]`.
        batch: the fixed batch size, None if it is dynamic.
        scores: the scores that `logits` allow: fewer if they are logarithms of probabilities.
        outputs: the classifier's own outputs.
        features: the tensor with its features, `[N, D]`; None if no score needs them.
    """

    model: ModelProto
    inputs: tuple[GraphInput, ...]
    logits: str
    batch: int | None = None
    scores: tuple[str, ...] = LOGIT_SCORES
    outputs: tuple[OwnOutput, ...] = ()
    features: str | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensor with the logits, and that with the features if there is one."""
        return (self.logits,) if self.features is None else (self.logits, self.features)

    @property
    def precision(self) -> Precision:
        """The lowest precision of its weights."""
        types = {tensor.data_type for tensor in tensors_of(self.model) if len(tensor.dims) > 1}
        return "int8" if types & _EIGHT_BITS else "fp16" if TensorProto.FLOAT16 in types else "fp32"


def read_model(path: Path) -> ModelProto:
    """The graph in `path`, with its weights, in an opset that can be wrapped, without constants among its inputs.

    Raises:
        GraphError: if the file is not an ONNX graph or too large for one file, or if a node cannot be wrapped; the
            message names the node.
    """
    model = read_file(path)
    if model.functions:
        model = inline_local_functions(model)
    refuse_unsupported(model)
    add_float_logits(model)
    strip_source_locations(model)
    if 0 < opset_of(model) < _MIN_OPSET:
        model = with_opset(model, _CONVERTED_OPSET)
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    # From IR version 4 on, weights need not be listed among the inputs, where a caller could override them.
    model.ir_version = max(model.ir_version, _MIN_IR)
    replace_content(model.graph.input, [value for value in model.graph.input if value.name not in weights])
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            # Paddle and others write -1, some 0, for dynamic dimensions.
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.ClearField("dim_value")
    return model


def reduced_to(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """A copy of `model` with the nodes, weights and inputs that `outputs` depend on, and these outputs.

    Raises:
        GraphError: if they depend on no input.
    """
    reduced = ModelProto()
    reduced.CopyFrom(model)
    prune(reduced.graph, outputs)
    if not reduced.graph.input:
        raise GraphError(outputs[0], "depends on no input of the graph", "Name other --logits")
    return reduced


def graph_inputs(model: ModelProto) -> tuple[GraphInput, ...]:
    """The inputs of `model`; without a declared shape, integers have the axes of texts and others those of images."""
    return tuple(map(_graph_input, model.graph.input))


def _graph_input(value: ValueInfoProto) -> GraphInput:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        axes = _TEXT_AXES if tensor.elem_type in _INTEGERS else _IMAGE_AXES
        return GraphInput(value.name, tensor.elem_type, (None,) * axes)
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return GraphInput(value.name, tensor.elem_type, shape)
