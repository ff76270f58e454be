"""ONNX graphs of any origin: reading their files, following their tensors, and changing them."""

import hashlib
from collections.abc import Collection, Iterator, MutableSequence, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, version_converter
from onnx.external_data_helper import load_external_data_for_model

from training.errors import GraphError

T = TypeVar("T")

_MAX_BYTES = 2**31 - 1
"""The limit of a protobuf message, and so of an ONNX file that contains its weights."""


def read_file(path: Path) -> ModelProto:
    """The model in `path`, with its weights.

    Raises:
        GraphError: if the file cannot be read, is no ONNX graph, or is too large for one file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        size = sum(file.stat().st_size for file in (path, *_weight_files(path, model)))
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


def digest_of(path: Path) -> bytes:
    """The SHA-256 of the model in `path`: of the file, followed by the files beside it that hold its weights."""
    digest = hashlib.sha256()
    for file in (path, *_weight_files(path, onnx.load(path, load_external_data=False))):
        digest.update(file.read_bytes())
    return digest.digest()


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


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """The constant tensors of `model`, those in attributes and inner graphs included."""
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        yield from (attribute.t for node in graph.node for attribute in node.attribute)


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that `model` imports, 0 if none."""
    return next((int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


def strip_source_locations(model: ModelProto) -> None:
    """Delete the exporter's metadata from `model`: stack traces with paths of the machine that exported it."""
    parts: list[Any] = [model, *model.functions]
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            parts += [graph, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
            nodes += graph.node
        for node in nodes:
            parts += [node, *node.attribute]
            graphs += [
                subgraph
                for attribute in node.attribute
                for subgraph in (attribute.g, *attribute.graphs)
                if subgraph.node
            ]
        nodes = []
    for part in parts:
        for field in ("metadata_props", "doc_string"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)


def replace_content(field: MutableSequence[T], content: Sequence[T]) -> None:
    """Replace the elements of a repeated field."""
    content = list(content)
    del field[:]
    field.extend(content)


def _weight_files(path: Path, model: ModelProto) -> list[Path]:
    """The files that `model`, read from `path` without its weights, names for them, in the order of their names."""
    locations = {
        entry.value for tensor in tensors_of(model) for entry in tensor.external_data if entry.key == "location"
    }
    return [path.parent / location for location in sorted(locations)]


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


def _inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from (graph for graph in (attribute.g, *attribute.graphs) if graph.node or graph.output)


def _reads(node: NodeProto) -> Iterator[str]:
    """The names that `node` reads, and those that the graphs inside it read."""
    yield from (name for name in node.input if name)
    for graph in _inner_graphs(node):
        yield from (name for inner in graph.node for name in _reads(inner))
        yield from (output.name for output in graph.output)
