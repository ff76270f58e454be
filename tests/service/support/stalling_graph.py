"""Edits of the tiny bundle's graph after which a batch with a white picture takes forever."""

import onnx
from onnx import TensorProto, helper

from tests.service.support.pictures import picture

WHITE = picture("white")
"""The picture that stalls the engine."""


def loop_forever(model: onnx.ModelProto, *, always: bool = False) -> None:
    """Make the graph repeat an addition 2**62 times for a white picture, or for every picture.

    ONNX Runtime can end such a call between two repetitions.
    """
    _count(model, once=1, repetitions=2**62, always=always)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_then"]),
            helper.make_node("Add", ["rows", "zero"], ["rows_then"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on_then", TensorProto.BOOL, []),
            helper.make_tensor_value_info("rows_then", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
    _append(model, helper.make_node("Loop", ["count", "", "endless_logits"], ["logits"], body=body))


def search_forever(model: onnx.ModelProto, *, always: bool = False) -> None:
    """Make the graph compare 300,000 boxes with each other for a white picture, or for every picture.

    That is a single operator, which ONNX Runtime cannot end; it takes minutes. Other pictures take some milliseconds,
    too long for the event loop, so that an engine thread computes them.
    """
    _count(model, once=2_000, repetitions=300_000, always=always)
    constants = {"first": 0, "step": 1, "most": 2**31}
    model.graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [], [value]) for name, value in constants.items()
    )
    model.graph.initializer.extend(
        [
            helper.make_tensor("row_shape", TensorProto.INT64, [3], [1, 1, -1]),
            helper.make_tensor("column_shape", TensorProto.INT64, [3], [1, -1, 1]),
            helper.make_tensor("overlap", TensorProto.FLOAT, [1], [0.5]),
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        ]
    )
    _append(
        model,
        helper.make_node("Range", ["first", "count", "step"], ["positions"]),
        helper.make_node("Cast", ["positions"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers", "row_shape"], ["ranks"]),
        helper.make_node("Reshape", ["numbers", "column_shape"], ["low"]),
        helper.make_node("Add", ["low", "half"], ["high"]),
        helper.make_node("Concat", ["low", "low", "high", "high"], ["boxes"], axis=2),
        helper.make_node("NonMaxSuppression", ["boxes", "ranks", "most", "overlap"], ["selected"]),
        helper.make_node("Cast", ["selected"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["found"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["addend"]),
        helper.make_node("Add", ["endless_logits", "addend"], ["logits"]),
    )


def _count(model: onnx.ModelProto, *, once: int, repetitions: int, always: bool) -> None:
    """Compute `count`: `repetitions` if a picture of the batch is white, else `once`. Renames the logits."""
    for node in model.graph.node:
        node.output[:] = ["endless_logits" if name == "logits" else name for name in node.output]
    model.graph.initializer.extend(
        [
            helper.make_tensor("almost_white", TensorProto.FLOAT, [], [-1.0 if always else 0.99]),
            helper.make_tensor("repetitions", TensorProto.INT64, [], [repetitions]),
            helper.make_tensor("once", TensorProto.INT64, [], [once]),
            helper.make_tensor("channel_axis", TensorProto.INT64, [1], [1]),
        ]
    )
    _append(
        model,
        helper.make_node("ReduceMin", ["unit", "channel_axis"], ["darkest"], keepdims=0),
        helper.make_node("ReduceMax", ["darkest"], ["whitest"], keepdims=0),
        helper.make_node("Greater", ["whitest", "almost_white"], ["is_white"]),
        helper.make_node("Where", ["is_white", "repetitions", "once"], ["count"]),
    )


def _append(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Add nodes after the producer of the logits and before its consumers."""
    position = 1 + max(
        index for index, node in enumerate(model.graph.node) if {"endless_logits", "count"} & set(node.output)
    )
    for offset, node in enumerate(nodes):
        model.graph.node.insert(position + offset, node)
