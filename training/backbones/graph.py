"""The graph of a bundle with a backbone: the backbone, then the classifier that was trained on its features."""

import onnx
from onnx import ModelProto, compose, version_converter

from training.backbones.backbone import FEATURES, Backbone
from training.errors import GraphError


def join_head(backbone: Backbone, head: ModelProto) -> ModelProto:
    """The graph from images to the outputs of `head`, whose input is `FEATURES` float32 `[N, 1, D]`.

    Raises:
        GraphError: The operators of the backbone cannot be converted to the head's version.
    """
    model = ModelProto()
    model.CopyFrom(backbone.model)
    versions = [next(o.version for o in m.opset_import if o.domain in ("", "ai.onnx")) for m in (model, head)]
    if versions[0] < versions[1]:
        try:
            model = version_converter.convert_version(model, versions[1])
        except Exception as error:
            reason = f"its operators of version {versions[0]} cannot be converted to version {versions[1]}: {error}"
            raise GraphError(backbone.source, reason, "Export it again with a newer opset") from error
    elif versions[0] > versions[1]:
        head = version_converter.convert_version(head, versions[0])
    head = compose.add_prefix(head, "head/", rename_inputs=False, rename_outputs=False)
    # The head's input has an axis of length 1 between N and D.
    model.graph.initializer.append(onnx.helper.make_tensor("head/axis", onnx.TensorProto.INT64, [1], [1]))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", [FEATURES, "head/axis"], ["head/features"]))
    for node in head.graph.node:
        for i, name in enumerate(node.input):
            if name == head.graph.input[0].name:
                node.input[i] = "head/features"
    model.graph.node.extend(head.graph.node)
    model.graph.initializer.extend(head.graph.initializer)
    del model.graph.output[:]
    model.graph.output.extend(head.graph.output)
    del model.graph.value_info[:]
    domains = {opset.domain for opset in model.opset_import}
    model.opset_import.extend(opset for opset in head.opset_import if opset.domain not in domains)
    model.functions.extend(head.functions)
    model.producer_name = "ood-scoring-service"
    return model
