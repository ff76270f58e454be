"""The variant graph: an exported graph in a lower precision, its inputs and outputs and its scores as they were."""

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
from training.export.onnx_graph import strip_source_locations

LowPrecision = Literal["fp16", "int8"]
Feed = Mapping[str, NDArray[np.generic]]

_QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WEIGHTED = (*_QUANTISED, "GRU", "LSTM", "RNN", "Scan", "Loop", "If")
"""Operators that compute a model's features; what comes behind the last of them makes scores of them."""

_FEWEST = 3
"""The first and the last stay float32: what they round, every class and every score has to bear."""


def write_low_precision(graph: Path, target: Path, precision: LowPrecision, feeds: Iterable[Feed]) -> None:
    """Write `graph` in `precision` to `target`; what makes scores of the last weighted operator's values stays float32.

    For int8, the values that real training inputs, the batches `feeds`, take inside the graph set the activations'
    scales. Raises GraphError where there is nothing to be computed in int8.
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
        strip_source_locations(model)
        onnx.save(model, target)
    else:
        _write_int8(graph, target, feeds)


def _write_int8(graph: Path, target: Path, feeds: Iterable[Feed]) -> None:
    """Static quantisation: with scales that are taken from each batch, a row's scores would depend on the others."""
    with TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        # Batch normalisation goes into the convolutions before it, and shapes are noted for the quantiser.
        quant_pre_process(graph, folded, skip_symbolic_shape=True)
        model = onnx.load(folded)
        _name_nodes(model.graph)
        onnx.save(model, folded)
        chosen = [node.name for node in model.graph.node if node.op_type in _QUANTISED]
        if len(chosen) < _FEWEST:
            known = ", ".join(_QUANTISED)
            reason = f"has {len(chosen)} of the operators {known} outside of loops, int8 needs {_FEWEST} or more"
            raise GraphError("the graph", reason, "Export it with --precision fp16")
        quantize_static(
            folded,
            target,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            # CIFAR-10, OE: 0.07 points of AUROC at most on traffic signs and characters with both ends in float32, 0.9
            # without.
            nodes_to_exclude=[chosen[0], chosen[-1]],
            per_channel=True,
            # Seven bits of weight: with eight, CPUs without VNNI saturate sums, and scores would depend on the machine.
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


def _score_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes that no weighted operator depends on, those operators themselves left out."""
    before: set[str] = set()
    found = []
    for node in reversed(graph.node):
        if node.op_type in _WEIGHTED or before.intersection(node.output):
            before.update(name for name in node.input if name)
        else:
            found.append(node)
    return found
