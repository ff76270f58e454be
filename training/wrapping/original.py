"""The original: an ONNX classifier as its author saved it, its weights inside it, cut down to what its logits need."""

from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from bundle import Precision
from training.errors import GraphError
from training.export.onnx_graph import strip_source_locations
from training.wrapping.values import candidate_logits

T = TypeVar("T")

_LARGEST = 2**31 - 1
"""Bytes that one protobuf message, and so one self-contained ONNX file, can have."""
_MIN_OPSET, _MIN_IR = 7, 8
_EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}


@dataclass(frozen=True)
class GraphInput:
    """An input: `shape` are its dimensions, None where dynamic; `elem_type` is a `TensorProto` type."""

    name: str
    elem_type: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Original:
    """A classifier whose inputs are `inputs` and whose one output is `logits`."""

    model: ModelProto
    inputs: tuple[GraphInput, ...]
    logits: str

    @property
    def precision(self) -> Precision:
        """What its weights are in: the lowest that any of them has."""
        types = {tensor.data_type for tensor in _tensors(self.model) if len(tensor.dims) > 1}
        return "int8" if types & _EIGHT_BITS else "fp16" if TensorProto.FLOAT16 in types else "fp32"

    @property
    def batch(self) -> int | None:
        """The one batch size that it takes, None where it takes any."""
        return self.inputs[0].shape[0]


def load_original(path: Path, logits: str | None) -> Original:
    """Read the graph in `path` and keep what the tensor called `logits`, an output or an inner value, depends on.

    Raises GraphError for a file that is no ONNX graph or too large for one file, for a wrong or missing name (with the
    candidates), and for logits that depend on no input.
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
    _prune(model.graph, logits)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    if not inputs or not all(each.type.tensor_type.shape.dim for each in inputs):
        raise GraphError(path.name, f"'{logits}' depends on no input that has a batch", "Name other --logits")
    # From version 4 on weights need not be listed among the inputs, where they could be overridden.
    model.ir_version = max(model.ir_version, _MIN_IR)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return Original(model, tuple(map(_described, inputs)), logits)


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        outside = {
            entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"
        }
        size = path.stat().st_size + sum((path.parent / name).stat().st_size for name in outside)
        if size > _LARGEST:
            reason = f"with its weights it has {size / 2**30:.1f} GiB, a self-contained ONNX file at most 2"
            raise GraphError(path.name, reason, "Convert its weights to float16, or take a smaller model")
        load_external_data_for_model(model, str(path.parent))
    except GraphError:
        raise
    except OSError as error:
        raise GraphError(
            str(path), f"cannot be read: {error}", "Give an ONNX file with its weights beside it"
        ) from error
    # A damaged file fails in protobuf or in onnx, each with types of its own.
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


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """`graph` and the graphs inside its nodes (the branches of an If, the body of a Loop)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs_of(inner)


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that `model` uses, 0 where it uses none."""
    return next((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def _prune(graph: GraphProto, target: str) -> None:
    """Leave the nodes, weights and inputs that `target` depends on, and `target` as the only output."""
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    wanted, names, kept = [target], {target}, set[int]()
    while wanted:
        made_by = producers.get(wanted.pop())
        if made_by is not None and made_by not in kept:
            kept.add(made_by)
            new = set(reads(graph.node[made_by])) - names
            names |= new
            wanted += new
    _keep(graph.node, [node for i, node in enumerate(graph.node) if i in kept])
    _keep(graph.initializer, [each for each in graph.initializer if each.name in names])
    _keep(graph.sparse_initializer, [each for each in graph.sparse_initializer if each.values.name in names])
    _keep(graph.input, [each for each in graph.input if each.name in names])
    # Shapes of inner values may name a fixed batch; ONNX Runtime infers them anew.
    del graph.value_info[:]
    del graph.output[:]
    graph.output.add(name=target)


def _keep(field: MutableSequence[T], kept: list[T]) -> None:
    del field[:]
    field.extend(kept)


def reads(node: NodeProto) -> Iterator[str]:
    """The names that `node` reads, those that the graphs inside it read included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from (name for each in inner.node for name in reads(each))
            yield from (each.name for each in inner.output)


def _described(given: onnx.ValueInfoProto) -> GraphInput:
    tensor = given.type.tensor_type
    shape = tuple(each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim)
    return GraphInput(given.name, tensor.elem_type, shape)
