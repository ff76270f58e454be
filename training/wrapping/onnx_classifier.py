"""The ONNX classifier to be wrapped: read from its file, and reduced to the nodes that its outputs depend on."""

from collections.abc import Collection, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, version_converter
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions

from bundle import LOGIT_SCORES, Precision
from training.errors import GraphError
from training.export.onnx_graph import strip_source_locations
from training.wrapping.unsupported_nodes import refuse_unsupported

T = TypeVar("T")

_MAX_BYTES = 2**31 - 1
"""The limit of a protobuf message, and so of an ONNX file that contains its weights."""
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
    """A classifier of any origin: a graph with its weights, from `inputs` to `logits` and `outputs`.

    Attributes:
        model: the graph.
        inputs: its inputs.
        logits: the tensor with the logits, `[N, K]`.
        batch: the fixed batch size, None if it is dynamic.
        scores: the scores that `logits` allow: fewer if they are logarithms of probabilities.
        outputs: the classifier's own outputs.
    """

    model: ModelProto
    inputs: tuple[GraphInput, ...]
    logits: str
    batch: int | None = None
    scores: tuple[str, ...] = LOGIT_SCORES
    outputs: tuple[OwnOutput, ...] = ()

    @property
    def precision(self) -> Precision:
        """The lowest precision of its weights."""
        types = {tensor.data_type for tensor in _tensors(self.model) if len(tensor.dims) > 1}
        return "int8" if types & _EIGHT_BITS else "fp16" if TensorProto.FLOAT16 in types else "fp32"


def read_model(path: Path) -> ModelProto:
    """The graph in `path`, with its weights, in an opset that can be wrapped, without constants among its inputs.

    Raises:
        GraphError: if the file is not an ONNX graph or too large for one file, or if a node cannot be wrapped; the
            message names the node.
    """
    model = _read(path)
    if model.functions:
        model = inline_local_functions(model)
    refuse_unsupported(model)
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


def with_opset(model: ModelProto, opset: int) -> ModelProto:
    """`model` in operators of `opset`.

    Raises:
        GraphError: if ONNX cannot convert it.
    """
    try:
        return version_converter.convert_version(model, opset)
    # The converter raises RuntimeError and others for operators that it does not know.
    except Exception as error:
        reason = f"its opset {opset_of(model)} cannot be converted to {opset}: {str(error).strip().splitlines()[-1]}"
        raise GraphError("the graph", reason, f"Export it with opset {opset} or later") from error


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


def prune(graph: GraphProto, outputs: Sequence[str]) -> None:
    """Make the tensors `outputs` the only outputs of `graph`, and remove all that they do not depend on.

    `onnx.utils.Extractor` does not follow the tensors that inner graphs read, and refuses sparse weights.
    """
    needed, kept = _ancestors(graph, outputs)
    replace_content(graph.node, [node for i, node in enumerate(graph.node) if i in kept])
    replace_content(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    replace_content(
        graph.sparse_initializer, [sparse for sparse in graph.sparse_initializer if sparse.values.name in needed]
    )
    replace_content(graph.input, [value for value in graph.input if value.name in needed])
    # Shapes of inner tensors may contain a fixed batch; ONNX Runtime infers them itself.
    del graph.value_info[:]
    del graph.output[:]
    for name in dict.fromkeys(outputs):
        graph.output.add(name=name)


def ancestors_of(graph: GraphProto, tensor: str) -> set[str]:
    """The names of the tensors that `tensor` is computed from, and its own."""
    return _ancestors(graph, [tensor])[0]


def graph_inputs(model: ModelProto) -> tuple[GraphInput, ...]:
    """The inputs of `model`; without a declared shape, integers have the axes of texts and others those of images."""
    return tuple(map(_graph_input, model.graph.input))


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """`graph` and the graphs inside its nodes: the branches of an If, the body of a Loop."""
    yield graph
    for node in graph.node:
        for inner in _inner_graphs(node):
            yield from graphs_of(inner)


def tensor_names(graph: GraphProto) -> set[str]:
    """The names of all tensors in `graph` and in the graphs inside its nodes."""
    names: set[str] = set()
    for part in graphs_of(graph):
        names.update(value.name for value in part.input)
        names.update(tensor.name for tensor in part.initializer)
        names.update(sparse.values.name for sparse in part.sparse_initializer)
        names.update(name for node in part.node for name in node.output)
    return names


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that `model` imports, 0 if none."""
    return next((int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


def replace_content(field: MutableSequence[T], content: Sequence[T]) -> None:
    """Replace the elements of a repeated field."""
    content = list(content)
    del field[:]
    field.extend(content)


def _ancestors(graph: GraphProto, tensors: Collection[str]) -> tuple[set[str], set[int]]:
    """The tensors, and the positions of the nodes, that `tensors` depend on."""
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    pending, needed, nodes = list(tensors), set(tensors), set[int]()
    while pending:
        producer = producers.get(pending.pop())
        if producer is not None and producer not in nodes:
            nodes.add(producer)
            new = set(_reads(graph.node[producer])) - needed
            needed |= new
            pending += new
    return needed, nodes


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        external = {
            entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"
        }
        size = path.stat().st_size + sum((path.parent / name).stat().st_size for name in external)
        if size > _MAX_BYTES:
            reason = f"with its weights it has {size / 2**30:.1f} GiB, a self-contained ONNX file at most 2"
            raise GraphError(path.name, reason, "Convert its weights to float16, or take a smaller model")
        load_external_data_for_model(model, str(path.parent))
    except GraphError:
        raise
    except OSError as error:
        raise GraphError(
            str(path), f"cannot be read: {error}", "Give an ONNX file with its weights beside it"
        ) from error
    # protobuf and onnx raise many types for a damaged file.
    except Exception as error:
        raise GraphError(
            str(path), f"is no ONNX file: {error}", "Give a file that torch.onnx or another wrote"
        ) from error
    if not model.graph.node:
        raise GraphError(str(path), "is no ONNX file: it has no nodes", "Give a file that torch.onnx or another wrote")
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        yield from (attribute.t for node in graph.node for attribute in node.attribute)


def _inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from (graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.output)


def _reads(node: NodeProto) -> Iterator[str]:
    """The names that `node` reads, and those that the graphs inside it read."""
    yield from (name for name in node.input if name)
    for graph in _inner_graphs(node):
        yield from (name for inner in graph.node for name in _reads(inner))
        yield from (output.name for output in graph.output)


def _graph_input(value: ValueInfoProto) -> GraphInput:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        axes = _TEXT_AXES if tensor.elem_type in _INTEGERS else _IMAGE_AXES
        return GraphInput(value.name, tensor.elem_type, (None,) * axes)
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return GraphInput(value.name, tensor.elem_type, shape)
