"""The ONNX classifier to be wrapped: read from its file and reduced to the nodes that its logits depend on."""

from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import load_external_data_for_model

from bundle import Precision
from training.errors import GraphError
from training.export.onnx_graph import strip_source_locations
from training.wrapping.logits import candidate_logits

T = TypeVar("T")

_MAX_BYTES = 2**31 - 1
"""The limit of a protobuf message, and so of an ONNX file that contains its weights."""
_MIN_OPSET, _MIN_IR = 7, 8
_EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}


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
class OnnxClassifier:
    """A classifier of any origin: a graph with its weights, from `inputs` to its only output `logits`."""

    model: ModelProto
    inputs: tuple[GraphInput, ...]
    logits: str

    @property
    def precision(self) -> Precision:
        """The lowest precision of its weights."""
        types = {tensor.data_type for tensor in _tensors(self.model) if len(tensor.dims) > 1}
        return "int8" if types & _EIGHT_BITS else "fp16" if TensorProto.FLOAT16 in types else "fp32"

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None if it is dynamic."""
        return self.inputs[0].shape[0]


def load_classifier(path: Path, logits: str | None) -> OnnxClassifier:
    """Read the graph in `path` and keep the nodes that the tensor `logits`, an output or an inner one, depends on.

    Raises:
        GraphError: if the file is not an ONNX graph or too large for one file, if `logits` is missing or wrong (the
            message lists candidates), or if the logits depend on no input.
    """
    model = _read(path)
    strip_source_locations(model)
    if 0 < opset_of(model) < _MIN_OPSET:
        reason = f"its opset is {opset_of(model)}, older than {_MIN_OPSET}"
        raise GraphError(path.name, reason, "Convert it first (onnx.version_converter.convert_version)")
    if logits is None or logits not in {name for node in model.graph.node for name in node.output}:
        candidates = ", ".join(candidate_logits(model)) or "none: no float tensor of two dimensions is computed in it"
        reason = "no --logits given" if logits is None else f"has no tensor '{logits}'"
        raise GraphError(path.name, reason, f"Name the logits [N, K] before any softmax. Candidates: {candidates}")
    prune(model.graph, logits)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs or not all(value.type.tensor_type.shape.dim for value in inputs):
        raise GraphError(path.name, f"'{logits}' depends on no input that has a batch", "Name other --logits")
    # From IR version 4 on, weights need not be listed among the inputs, where a caller could override them.
    model.ir_version = max(model.ir_version, _MIN_IR)
    _replace(model.graph.input, inputs)
    return OnnxClassifier(model, tuple(map(_graph_input, inputs)), logits)


def prune(graph: GraphProto, output: str) -> None:
    """Make the tensor `output` the only output of `graph`, and remove all that it does not depend on.

    `onnx.utils.Extractor` does not follow the tensors that inner graphs read, and refuses sparse weights.
    """
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    pending, needed, kept = [output], {output}, set[int]()
    while pending:
        producer = producers.get(pending.pop())
        if producer is not None and producer not in kept:
            kept.add(producer)
            new = set(_reads(graph.node[producer])) - needed
            needed |= new
            pending += new
    _replace(graph.node, [node for i, node in enumerate(graph.node) if i in kept])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _replace(graph.sparse_initializer, [sparse for sparse in graph.sparse_initializer if sparse.values.name in needed])
    _replace(graph.input, [value for value in graph.input if value.name in needed])
    # Shapes of inner tensors may contain a fixed batch; ONNX Runtime infers them itself.
    del graph.value_info[:]
    del graph.output[:]
    graph.output.add(name=output)


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """`graph` and the graphs inside its nodes: the branches of an If, the body of a Loop."""
    yield graph
    for node in graph.node:
        for inner in _inner_graphs(node):
            yield from graphs_of(inner)


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that `model` imports, 0 if none."""
    return next((int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


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


def _replace(field: MutableSequence[T], content: list[T]) -> None:
    del field[:]
    field.extend(content)


def _graph_input(value: ValueInfoProto) -> GraphInput:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return GraphInput(value.name, tensor.elem_type, shape)
