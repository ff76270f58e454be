"""The score head of trained classifiers as an ONNX graph, for classifiers that torch did not export."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, compose, helper, version_converter

from training.errors import GraphError
from training.models.score_heads import ClassifierHead
from training.onnx_graphs import replace_content, strip_source_locations
from training.scoring.batch_scoring import Outputs

LOGITS, FEATURES = "logits", "features"
"""The inputs of a head's graph; `FEATURES` only if one of its scores needs them."""

_PREFIX = "ood-scores/"
_NEWEST_EXPORTED_OPSET = 20


def head_graph(head: ClassifierHead, num_classes: int, opset: int) -> GraphProto:
    """The graph of `head` in operators of `opset`, from logits to the head's outputs; other names have a prefix.

    Args:
        head: the scores and the prediction.
        num_classes: the number of logits, K.
        opset: the version of ONNX's operators.

    Returns:
        A graph from `LOGITS` `[N, K]` and, if the head reads them, `FEATURES` `[N, D]`, of any floating-point types, to
        float32 scores.

    Raises:
        GraphError: if `opset` has no operators for one of the scores.
    """
    # torch's newer exporter, `dynamo=True`, writes opset 18 and later, and ONNX converts graphs to later opsets only.
    names: list[str] = [LOGITS]
    arguments: tuple[torch.Tensor | None, ...] = (torch.zeros(2, num_classes),)
    if head.num_features:
        names, arguments = [LOGITS, FEATURES], (*arguments, None, torch.zeros(2, head.num_features))
    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore", category=Warning):
        path = Path(folder) / "head.onnx"
        try:
            torch.onnx.export(
                head,
                arguments,
                path,
                input_names=names,
                output_names=list(head.output_names),
                dynamic_axes={name: {0: "N"} for name in (*names, *head.output_names)},
                opset_version=min(opset, _NEWEST_EXPORTED_OPSET),
                dynamo=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = f"its opset, {opset}, has no operators for the scores: {error}"
            remedy = "Convert it first (onnx.version_converter.convert_version)"
            raise GraphError("the graph", reason, remedy) from error
        model = onnx.load(path)
    if opset > _NEWEST_EXPORTED_OPSET:
        model = version_converter.convert_version(model, opset)
    strip_source_locations(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    # Below opset 9, torch lists constants among the inputs.
    replace_content(model.graph.input, [value for value in model.graph.input if value.name not in constants])
    graph = compose.add_prefix_graph(model.graph, _PREFIX, rename_outputs=False)
    for name, value in zip(names, graph.input, strict=True):
        graph.node.insert(0, helper.make_node("Cast", [name], [value.name], to=TensorProto.FLOAT))
        value.name = name
    for node in graph.node:
        # The names of nodes must differ in a graph, and the classifier may be a wrapped one.
        node.ClearField("name")
    return graph


@torch.inference_mode()
def reference_outputs(
    head: ClassifierHead, logits: NDArray[np.generic], features: NDArray[np.generic] | None = None
) -> Outputs:
    """The outputs of `head` by torch in float64: the wrapped graph is compared with them.

    Args:
        head: the scores and the prediction.
        logits: the classifier's logits `[N, K]`.
        features: its features `[N, D]`, if the head reads them.
    """
    tensors = (None if values is None else torch.from_numpy(values.astype(np.float64)) for values in (logits, features))
    logits64, features64 = tensors
    outputs = head(logits64, features=features64)
    return {name: output.numpy() for name, output in zip(head.output_names, outputs, strict=True)}
