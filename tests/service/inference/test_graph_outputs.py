"""Removing outputs from ONNX graphs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.inference.graph_outputs import without_outputs
from tests.support.tiny_bundle import make_tiny_bundle, tiny_images


@pytest.mark.parametrize("in_order", [True, False])
def test_an_output_is_removed_with_the_nodes_and_weights_that_only_it_needs(in_order: bool, tmp_path: Path) -> None:
    full = onnx.load(make_tiny_bundle(tmp_path, evidence=True) / "model.onnx")
    if not in_order:
        # As the conversion to float16 leaves it; ONNX Runtime sorts the nodes.
        nodes = list(full.graph.node)
        del full.graph.node[:]
        full.graph.node.extend(reversed(nodes))
    reduced = onnx.load_from_string(without_outputs(full.SerializeToString(), {"evidence"}))
    assert {output.name for output in full.graph.output} - {output.name for output in reduced.graph.output} == {
        "evidence"
    }
    assert "pixel_logits" not in {name for node in reduced.graph.node for name in node.output}
    assert "pixel_count" not in {tensor.name for tensor in reduced.graph.initializer}
    names = [output.name for output in reduced.graph.output]
    feed = {"images": tiny_images(3)}
    expected, actual = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(names, feed) for model in (full, reduced)
    )
    for before, after in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(before, after)


def test_tensors_that_subgraphs_read_are_kept() -> None:
    def branch(name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node("Add", [name, "weight"], [f"{name}_out"])], name, [], [output])

    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["negative"]),
            helper.make_node("Abs", ["x"], ["absolute"]),
            helper.make_node("Sqrt", ["absolute"], ["root"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch("negative"), else_branch=branch("absolute")),
        ],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("y", "root")],
        [numpy_helper.from_array(np.ones(2, np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    reduced = without_outputs(model.SerializeToString(), {"root"})
    assert [node.op_type for node in onnx.load_from_string(reduced).graph.node] == ["Neg", "Abs", "If"]
    session = onnxruntime.InferenceSession(reduced)
    for condition, expected in ((True, [0, 3]), (False, [2, 3])):
        (y,) = session.run(["y"], {"x": np.array([1, -2], np.float32), "c": np.array(condition)})
        assert y.tolist() == expected
