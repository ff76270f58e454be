"""The graph of a bundle with a backbone: the backbone, then the classifier that was trained on its features."""

import onnx
from onnx import ModelProto, compose

from training.backbones.backbone import FEATURES, Backbone
from training.onnx_graphs import opset_of, with_opset


def join_head(backbone: Backbone, head: ModelProto) -> ModelProto:
    """The graph from images or texts to the outputs of `head`, whose input is `FEATURES` float32 `[N, 1, D]`.

    Raises:
        GraphError: The operators of the backbone cannot be converted to the head's version.
    """
    model = ModelProto()
    model.CopyFrom(backbone.model)
    opset = max(opset_of(model), opset_of(head))
    model, head = (part if opset_of(part) == opset else with_opset(part, opset) for part in (model, head))
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
