"""Conversion of an exported graph to float16 or int8; inputs, outputs and the computation of scores stay float32."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from training.errors import GraphError
from training.onnx_graphs import ancestors_of, replace_content, strip_source_locations, tensor_names

LowPrecision = Literal["fp16", "int8"]
Feed = Mapping[str, NDArray[np.generic]]

_QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WEIGHTED = (*_QUANTISED, "GRU", "LSTM", "RNN", "Scan", "Loop", "If")
"""Operators that compute a model's features and logits; scores of features have some of them, too."""

_PREDICTION = "prediction"
"""The output of a classifier's graph that depends on the logits, but on no score."""

_MIN_QUANTISED = 3
"""The first and the last quantisable operator stay float32, because their rounding affects every class and score."""


def write_low_precision(graph: Path, target: Path, precision: LowPrecision, feeds: Iterable[Feed]) -> None:
    """Write `graph` in `precision` to `target`; the nodes that compute scores of features and logits stay float32.

    Args:
        graph: The file of the float32 graph.
        target: The file to write.
        precision: The lower precision.
        feeds: Batches of real training inputs. For int8, the values inside the graph for these inputs determine the
            scales of activations.

    Raises:
        GraphError: The graph has too few operators that int8 supports.
    """
    if precision == "fp16":
        model = onnx.load(graph)
        _name_nodes(model.graph)
        model = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=[node.name for node in _score_nodes(model.graph)],
        )
        _drop_repeated_casts(model.graph)
        strip_source_locations(model)
        onnx.save(model, target)
    else:
        _write_int8(graph, target, feeds)


def _write_int8(graph: Path, target: Path, feeds: Iterable[Feed]) -> None:
    """Quantise statically: with dynamic scales, the scores of a row would depend on the rest of its batch."""
    with TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        # Folds batch normalisation into the convolutions and infers the shapes that the quantiser needs.
        quant_pre_process(graph, folded, skip_symbolic_shape=True)
        model = onnx.load(folded)
        _name_nodes(model.graph)
        onnx.save(model, folded)
        score_nodes = {node.name for node in _score_nodes(model.graph)}
        quantisable = [node.name for node in model.graph.node if node.op_type in _QUANTISED]
        names = [name for name in quantisable if name not in score_nodes]
        if len(names) < _MIN_QUANTISED:
            supported = ", ".join(_QUANTISED)
            reason = (
                f"has {len(names)} of the operators {supported} outside of loops, int8 needs {_MIN_QUANTISED} or more"
            )
            raise GraphError("the graph", reason, "Export it with --precision fp16")
        quantize_static(
            folded,
            target,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            # Quantising the first and the last changes the AUROC too much (see docs/performance.md).
            nodes_to_exclude=[names[0], names[-1], *score_nodes.intersection(quantisable)],
            per_channel=True,
            # Seven-bit weights: with eight bits, sums saturate on CPUs without VNNI and scores depend on the machine.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(target)
    strip_source_locations(model)
    onnx.save(model, target)


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _name_nodes(graph: GraphProto) -> None:
    for i, node in enumerate(graph.node):
        node.name = node.name or f"node-{i}"


def _drop_repeated_casts(graph: GraphProto) -> None:
    """Remove nodes that repeat another one.

    For a tensor that several score nodes read, the converter of ONNX Runtime 1.31 adds the same cast several times.
    """
    nodes = {(node.op_type, tuple(node.input), tuple(node.output)): node for node in graph.node}
    replace_content(graph.node, list(nodes.values()))


def _score_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes that no weighted operator of the model itself is or depends on.

    The prediction depends on all weighted operators of a classifier, but not on those of the scores of its features.
    """
    is_classifier = any(output.name == _PREDICTION for output in graph.output)
    of_model = ancestors_of(graph, _PREDICTION) if is_classifier else tensor_names(graph)
    required: set[str] = set()
    score_nodes = []
    for node in reversed(graph.node):
        is_weighted = node.op_type in _WEIGHTED and not of_model.isdisjoint(node.output)
        if is_weighted or required.intersection(node.output):
            required.update(name for name in node.input if name)
        else:
            score_nodes.append(node)
    return score_nodes
