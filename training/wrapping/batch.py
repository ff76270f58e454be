"""The batch: a graph that was saved for one batch size is made to take any, and is held to it on real inputs."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from training.data import StoredArray
from training.errors import GraphError
from training.wrapping.input_adapter import InputAdapter
from training.wrapping.original import Original, graphs_of
from training.wrapping.sessions import OriginalLogits, open_session

_SIZES = (1, 2, 5)


def with_dynamic_batch(original: Original, adapter: InputAdapter, rows: NDArray[Any]) -> Original:
    """The original with a symbolic batch, proved on `rows` `[5, ...]`: each one's logits are as they were alone.

    The first and the last of several texts should be of different length: the shorter is padded. Where the batch was
    fixed, the constant shapes that name it are changed too. Raises GraphError when some batch size fails, or changes
    a row.
    """
    model = ModelProto()
    model.CopyFrom(original.model)
    fixed = original.batch
    if fixed is not None:
        for graph in graphs_of(model.graph):
            _free_reshapes(graph, fixed)
        for given in model.graph.input:
            batch = given.type.tensor_type.shape.dim[0]
            batch.ClearField("dim_value")
            batch.dim_param = "N"
    dynamic = tuple(replace(each, shape=(None, *each.shape[1:])) for each in original.inputs)
    # One at a time, or at the only batch size there was.
    alone = OriginalLogits(original, adapter)
    expected = np.concatenate([alone(StoredArray(row[None])) for row in rows])
    run = open_session(model, original.logits, adapter.options)
    for size in _SIZES:
        # From both ends: a batch of texts then has short and long ones.
        chosen = np.arange(size) * (len(rows) - 1) // max(size - 1, 1)
        try:
            found = run(adapter.feed(rows[chosen])).astype(np.float32)
        except GraphError as error:
            raise GraphError("the graph", f"fails at batch size {size}: {error.reason}", adapter.remedy) from error
        own = expected[chosen]
        if found.shape != own.shape or not np.allclose(found, own, rtol=1e-2, atol=1e-3 * float(np.ptp(own) + 1)):
            what = "with the batch" if len(rows.shape) > 2 else "with the batch and its padding"
            raise GraphError(
                "the graph", f"its logits for an input change {what} (size {size})", adapter.remedy
            ) from None
    return replace(original, model=model, inputs=dynamic)


def _free_reshapes(graph: GraphProto, batch: int) -> None:
    """Let every Reshape to a constant shape that begins with the fixed batch begin with whatever batch there is."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == 7}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for i, node in enumerate(graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) == 2 else None
        if shape is not None and shape.ndim == 1 and len(shape) and shape[0] == batch:
            _rename_shape(graph, node, i, shape)


def _rename_shape(graph: GraphProto, node: NodeProto, index: int, shape: NDArray[np.int64]) -> None:
    # -1 is what is left over and can stand once only; 0 copies the batch of what is reshaped.
    free = np.array([0 if -1 in shape[1:] else -1, *shape[1:]], dtype=np.int64)
    name = f"ood-batch/{index}"
    graph.initializer.append(numpy_helper.from_array(free, name))
    node.input[1] = name
