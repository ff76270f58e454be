"""The batch: a graph that was saved for one batch size is made to take any, and is held to it on real images."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from training.data import StoredArray
from training.errors import GraphError
from training.wrapping.image_plan import ImagePlan
from training.wrapping.original import Original, graphs_of
from training.wrapping.sessions import OriginalLogits, open_session

_SIZES = (1, 2, 5)
_REMEDY = (
    "Export it with a dynamic batch: torch.onnx.export(..., dynamic_shapes=({0: torch.export.Dim('N')},)) "
    "or dynamic_axes={'<input>': {0: 'N'}, '<output>': {0: 'N'}}"
)


def with_dynamic_batch(original: Original, plan: ImagePlan, images: NDArray[np.uint8]) -> Original:
    """The original with a symbolic batch, proved on `images` `[5, H, W, C]`: each row's logits are as they were.

    Where the batch was fixed, the constant shapes that name it are changed too. Raises GraphError when some batch size
    fails, or changes a row.
    """
    model = ModelProto()
    model.CopyFrom(original.model)
    fixed = original.shape[0]
    if fixed is not None:
        for graph in graphs_of(model.graph):
            _free_reshapes(graph, fixed)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    batch.ClearField("dim_value")
    batch.dim_param = "N"
    changed = replace(original, model=model, shape=(None, *original.shape[1:]))
    # One image at a time, or at the only batch size there was.
    expected = np.concatenate([OriginalLogits(original, plan)(StoredArray(image[None])) for image in images])
    run = open_session(model, original.logits)
    for size in _SIZES:
        try:
            found = run(original.input, plan.adapt(images[:size])).astype(np.float32)
        except GraphError as error:
            raise GraphError(
                original.input, f"the graph fails at batch size {size}: {error.reason}", _REMEDY
            ) from error
        rows = expected[:size]
        if found.shape != rows.shape or not np.allclose(found, rows, rtol=1e-2, atol=1e-3 * float(np.ptp(rows) + 1)):
            reason = f"the graph's logits for an image change with the batch (size {size})"
            raise GraphError(original.input, reason, f"{_REMEDY}, in evaluation mode") from None
    return changed


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
