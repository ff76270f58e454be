"""An edit of the tiny bundle's graph after which the evidence of some pictures cannot be computed."""

import onnx
from onnx import TensorProto, helper


def fail_to_explain(model: onnx.ModelProto, darkest: int) -> None:
    """Make the graph fail on a batch with a pixel value of at least `darkest`, if it computes the evidence."""
    for node in model.graph.node:
        node.output[:] = ["computed_evidence" if name == "evidence" else name for name in node.output]
    model.graph.initializer.extend(
        [
            helper.make_tensor("darkest", TensorProto.FLOAT, [], [darkest - 0.5]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0]),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["pixels"], ["brightest"], keepdims=0),
            helper.make_node("Greater", ["brightest", "darkest"], ["fails"]),
            # Index 1 of an array of one number does not exist.
            helper.make_node("Cast", ["fails"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["nothing", "index"], ["zero"]),
            helper.make_node("Add", ["computed_evidence", "zero"], ["evidence"]),
        ]
    )
