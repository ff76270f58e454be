"""Makes the batch size of an ONNX classifier dynamic, and checks on real inputs that batching changes no logits."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from training.data import StoredArray
from training.errors import GraphError
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.onnx_classifier import OnnxClassifier, graphs_of, prune
from training.wrapping.sessions import ClassifierLogits, open_session

_SIZES = (1, 2, 5)


def with_dynamic_batch(classifier: OnnxClassifier, adapter: InputAdapter, rows: NDArray[Any]) -> OnnxClassifier:
    """The classifier with a dynamic batch, checked on `rows`: in any batch, a row has the logits that it has alone.

    If the batch size was fixed, constant shapes that contain it change too.

    Args:
        classifier: the classifier.
        adapter: converts rows to the classifier's inputs.
        rows: five stored inputs `[5, ...]`. Texts should be ordered by length, so that the check covers padding.

    Raises:
        GraphError: if the graph fails at a batch size, or if the batch changes the logits of a row.
    """
    model = ModelProto()
    model.CopyFrom(classifier.model)
    if classifier.batch is not None:
        for graph in graphs_of(model.graph):
            _free_reshapes(graph, classifier.batch)
        for value in model.graph.input:
            batch = value.type.tensor_type.shape.dim[0]
            batch.ClearField("dim_value")
            batch.dim_param = "N"
        # The constant shapes that are not read any more.
        prune(model.graph, classifier.logits)
    # One row at a time, or at the fixed batch size.
    alone = ClassifierLogits(classifier, adapter)
    expected = np.concatenate([alone(StoredArray(row[None])) for row in rows])
    run = open_session(model, classifier.logits, adapter.options)
    for size in _SIZES:
        # Evenly spread rows: a batch of texts then has short and long ones.
        selected = np.arange(size) * (len(rows) - 1) // max(size - 1, 1)
        try:
            logits = run(adapter.feed(rows[selected])).astype(np.float32)
        except GraphError as error:
            raise GraphError("the graph", f"fails at batch size {size}: {error.reason}", adapter.remedy) from error
        separate = expected[selected]
        tolerance = 1e-3 * float(np.ptp(separate) + 1)
        if logits.shape != separate.shape or not np.allclose(logits, separate, rtol=1e-2, atol=tolerance):
            cause = "with the batch" if len(rows.shape) > 2 else "with the batch and its padding"
            raise GraphError("the graph", f"its logits for an input change {cause} (size {size})", adapter.remedy)
    inputs = tuple(replace(value, shape=(None, *value.shape[1:])) for value in classifier.inputs)
    return replace(classifier, model=model, inputs=inputs)


def _free_reshapes(graph: GraphProto, batch: int) -> None:
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
            name = f"ood-batch/{i}"
            graph.initializer.append(numpy_helper.from_array(dynamic, name))
            node.input[1] = name
