"""Listing the external weights of ONNX graphs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.inference.external_data import external_files


def test_external_weights_are_listed_in_every_part_of_a_graph() -> None:
    def external(name: str) -> onnx.TensorProto:
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), name)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=external("attribute"))], "branch", [], [])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)],
        "graph",
        [],
        [],
        [external("initializer"), numpy_helper.from_array(np.zeros(100_000, np.float32), "internal")],
    )
    model = helper.make_model(graph)
    assert external_files(model.SerializeToString()) == {"attribute.bin", "initializer.bin"}
    with pytest.raises(ValueError, match="not an ONNX graph"):
        external_files(model.SerializeToString()[:-5])
