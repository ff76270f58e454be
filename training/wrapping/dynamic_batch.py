"""Makes the batch size of an ONNX classifier dynamic, and checks on real inputs that batching changes no values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from training.data import StoredArray
from training.errors import GraphError
from training.onnx_graphs import graphs_of, prune, replace_content
from training.wrapping.class_axis import free_prefix
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.onnx_classifier import OnnxClassifier
from training.wrapping.sessions import ClassifierSession, ClassifierValues, open_session

_SIZES = (1, 2, 5)
_EVALUATION = "Export it in evaluation mode: in training mode, batch normalisation mixes the inputs of a batch"


def with_dynamic_batch(classifier: OnnxClassifier, adapter: InputAdapter, rows: NDArray[Any]) -> OnnxClassifier:
    """The classifier with a dynamic batch, checked on `rows`: in any batch, a row has the logits that it has alone.

    Features, if the classifier has them, are checked as logits are.

    If the batch size was fixed, constant shapes that contain it change too. If that does not give the same logits, the
    graph gets a loop, which computes one input at a time.

    Args:
        classifier: the classifier.
        adapter: converts rows to the classifier's inputs.
        rows: five stored inputs `[5, ...]`. Texts should be ordered by length, so that the check covers padding.

    Raises:
        GraphError: if the graph fails at a batch size, or if the batch changes the logits of a row.
    """
    # One row at a time, or repeated to the fixed batch size.
    alone = ClassifierSession(classifier, adapter)
    single = [_arrays(alone(StoredArray(row[None])), classifier) for row in rows]
    expected = [np.concatenate(part) for part in zip(*single, strict=True)]
    if classifier.batch is None:
        _check(classifier, adapter, rows, expected)
        return classifier
    if changed := _first_difference(_arrays(alone(StoredArray(rows)), classifier), expected):
        reason = f"its {changed} for an input change with the batch of {classifier.batch}"
        raise GraphError("the graph", reason, _EVALUATION)
    try:
        freed = _with_free_shapes(classifier)
        _check(freed, adapter, rows, expected)
    except GraphError:
        looped = _with_loop(classifier)
        _check(looped, adapter, rows, expected)
        return looped
    return freed


def _check(
    classifier: OnnxClassifier, adapter: InputAdapter, rows: NDArray[Any], expected: Sequence[NDArray[np.float32]]
) -> None:
    """Compare logits and features of `rows` in batches of several sizes with those `expected` of each row alone."""
    run = open_session(classifier.model, classifier.tensors, adapter.options)
    for size in _SIZES:
        # Evenly spread rows: a batch of texts then has short and long ones.
        selected = np.arange(size) * (len(rows) - 1) // max(size - 1, 1)
        try:
            values = [array.astype(np.float32) for array in run(adapter.feed(rows[selected]))]
        except GraphError as error:
            raise GraphError("the graph", f"fails at batch size {size}: {error.reason}", adapter.remedy) from error
        if changed := _first_difference(values, [array[selected] for array in expected]):
            cause = "with the batch" if len(rows.shape) > 2 else "with the batch and its padding"
            raise GraphError("the graph", f"its {changed} for an input change {cause} (size {size})", adapter.remedy)


def _arrays(values: ClassifierValues, classifier: OnnxClassifier) -> list[NDArray[np.float32]]:
    return [array for _, array in values.named(classifier)]


def _first_difference(values: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> str | None:
    """`logits` or `features`, the first of `values` that differ from those `expected`; None if all are equal."""
    for name, array, alone in zip(("logits", "features"), values, expected, strict=False):
        tolerance = 1e-3 * float(np.ptp(alone) + 1)
        if array.shape != alone.shape or not np.allclose(array, alone, rtol=1e-2, atol=tolerance):
            return name
    return None


def _with_free_shapes(classifier: OnnxClassifier) -> OnnxClassifier:
    """The classifier with a dynamic batch in its inputs and in the constant shapes of its Reshapes."""
    assert classifier.batch is not None, "the batch is fixed"
    model = ModelProto()
    model.CopyFrom(classifier.model)
    prefix = free_prefix(model, "ood-batch/")
    for graph in graphs_of(model.graph):
        _free_reshapes(graph, classifier.batch, prefix)
    _free_inputs(model.graph)
    # The constant shapes that are not read any more.
    prune(model.graph, [output.name for output in model.graph.output])
    return _dynamic(classifier, model)


def _free_reshapes(graph: GraphProto, batch: int, prefix: str) -> None:
    """Make the first axis of every Reshape dynamic whose constant shape begins with the fixed `batch`."""
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT64
    }
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for i, node in enumerate(graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) == 2 else None
        if shape is not None and shape.ndim == 1 and len(shape) and shape[0] == batch:
            # -1, the remaining size, can occur only once; 0 copies the batch of what is reshaped.
            dynamic = np.array([0 if -1 in shape[1:] else -1, *shape[1:]], dtype=np.int64)
            name = f"{prefix}{i}"
            graph.initializer.append(numpy_helper.from_array(dynamic, name))
            node.input[1] = name


def _with_loop(classifier: OnnxClassifier) -> OnnxClassifier:
    """The classifier in the body of a Loop over the inputs; each is repeated to the fixed batch size.

    A Loop, not a Scan: opsets 7 and 8 have another Scan, but the same Loop.
    """
    assert classifier.batch is not None, "the batch is fixed"
    model = ModelProto()
    model.CopyFrom(classifier.model)
    prefix = free_prefix(model, "ood-loop/")
    outputs = [output.name for output in model.graph.output]
    body = GraphProto()
    body.CopyFrom(model.graph)
    body.name = "one-input"
    names = {value.name: prefix + value.name for value in model.graph.input}
    for graph in graphs_of(body):
        for node in graph.node:
            replace_content(node.input, [names.get(name, name) for name in node.input])
    index, condition, row = prefix + "index", prefix + "condition", prefix + "row"
    before = [
        helper.make_node("Identity", [condition], [prefix + "continue"]),
        helper.make_node("Reshape", [index, prefix + "one"], [row]),
    ]
    for outer, inner in names.items():
        before.append(helper.make_node("Gather", [outer, row], [f"{inner}/single"], axis=0))
        before.append(helper.make_node("Concat", [f"{inner}/single"] * classifier.batch, [inner], axis=0))
    after = [helper.make_node("Gather", [name, prefix + "zero"], [f"{prefix}row/{name}"], axis=0) for name in outputs]
    replace_content(body.node, [*before, *body.node, *after])
    scalars = [(index, TensorProto.INT64), (condition, TensorProto.BOOL)]
    replace_content(body.input, [helper.make_tensor_value_info(name, type_, []) for name, type_ in scalars])
    replace_content(body.output, [helper.make_tensor_value_info(prefix + "continue", TensorProto.BOOL, [])])
    for name in outputs:
        body.output.add(name=f"{prefix}row/{name}")
    # The weights stay outside, so that ONNX Runtime prepares them once.
    replace_content(body.initializer, [])
    replace_content(body.sparse_initializer, [])
    replace_content(
        model.graph.node,
        [
            helper.make_node("Shape", [next(iter(names))], [prefix + "shape"]),
            helper.make_node("Gather", [prefix + "shape", prefix + "zero"], [prefix + "count"], axis=0),
            helper.make_node("Loop", [prefix + "count", ""], [f"{prefix}all/{name}" for name in outputs], body=body),
        ],
    )
    for name, value in (("zero", 0), ("one", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.int64), prefix + name))
    for output in model.graph.output:
        output.name = f"{prefix}all/{output.name}"
    _free_inputs(model.graph)
    own = tuple(replace(output, tensor=f"{prefix}all/{output.tensor}") for output in classifier.outputs)
    looped = replace(classifier, logits=f"{prefix}all/{classifier.logits}", outputs=own)
    if classifier.features is not None:
        looped = replace(looped, features=f"{prefix}all/{classifier.features}")
    return _dynamic(looped, model)


def _free_inputs(graph: GraphProto) -> None:
    """Make the first axis of every input dynamic."""
    for value in graph.input:
        if value.type.tensor_type.shape.dim:
            batch = value.type.tensor_type.shape.dim[0]
            batch.ClearField("dim_value")
            batch.dim_param = "N"


def _dynamic(classifier: OnnxClassifier, model: ModelProto) -> OnnxClassifier:
    inputs = tuple(replace(value, shape=(None, *value.shape[1:])) for value in classifier.inputs)
    return replace(classifier, model=model, inputs=inputs, batch=None)
