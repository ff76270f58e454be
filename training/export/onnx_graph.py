"""The ONNX graph: written by torch's exporter, run by ONNX Runtime, compared with the torch model on real inputs."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from training.data import InputArray
from training.errors import ParityError
from training.export.window_scan import splice_window_scan
from training.models.language_model import LanguageModel
from training.models.model import Model
from training.models.score_heads import ScoredModel
from training.scoring.score import Outputs, in_order, row_batches, scoring_order

Prepare = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""Makes a graph's inputs, in their order, of stored rows: a model's method of that name."""

_OPSET = 18
_BATCH = 64


def write_graph(model: ScoredModel, example: NDArray[Any], path: Path) -> None:
    """Write `model` with a dynamic batch (and text length) to one self-contained file.

    `example` are two stored rows or more; texts of two tokens or more.
    """
    # The exporter reports operators of packages that are not installed, and its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=Warning):
        torch.onnx.export(
            model.eval().cpu(),
            _example_inputs(model.model, torch.from_numpy(example)),
            str(path),
            input_names=list(model.model.input_names),
            output_names=list(model.output_names),
            # One tuple for all inputs because `forward` takes them as `*inputs`.
            dynamic_shapes=(model.model.dynamic_shapes,),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        written = onnx.load(path)
        if isinstance(model.model, LanguageModel):
            splice_window_scan(written, model.model)
    strip_source_locations(written)
    onnx.save(written, path)


def strip_source_locations(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on each part of `model`: stack traces with its machine's paths."""
    parts: list[Any] = [model, *model.functions]
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            parts += [graph, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
            nodes += graph.node
        for node in nodes:
            parts += [node, *node.attribute]
            graphs += [
                inner for attribute in node.attribute for inner in (attribute.g, *attribute.graphs) if inner.node
            ]
        nodes = []
    for part in parts:
        for note in ("metadata_props", "doc_string"):
            if note in part.DESCRIPTOR.fields_by_name:
                part.ClearField(note)


def _example_inputs(model: Model, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Inputs of `rows`, or of all but the last where batch and length agree: the exporter would take them for one."""
    inputs = model.prepare(rows)
    return model.prepare(rows[:-1]) if inputs[0].shape[0] == inputs[0].shape[1] else inputs


def run_graph(
    path: Path,
    inputs: InputArray,
    prepare: Prepare = lambda rows: (rows,),
    batch_size: int = _BATCH,
) -> Outputs:
    """Every output of the graph that is `[N]`, by name, computed by ONNX Runtime on the CPU.

    Images need no `prepare`.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    takes = [node.name for node in session.get_inputs()]
    names = [output.name for output in session.get_outputs() if len(output.shape) == 1]
    order = scoring_order(inputs)
    parts = [session.run(names, feed) for feed in graph_feeds(takes, inputs, prepare, batch_size)]
    return {
        name: in_order(np.concatenate(column), order)
        for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }


def graph_feeds(
    takes: Sequence[str], inputs: InputArray, prepare: Prepare, batch_size: int = _BATCH
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """What a graph with the inputs `takes` is fed for stored rows, a batch at a time in the order of scoring."""
    for _, rows in row_batches(scoring_order(inputs), batch_size):
        prepared = prepare(torch.from_numpy(np.ascontiguousarray(inputs[rows])))
        yield dict(zip(takes, (tensor.numpy() for tensor in prepared), strict=True))


def check_parity(
    expected: Outputs, graph_outputs: Outputs, tolerance: float, *, reference: str = "torch"
) -> dict[str, float]:
    """The largest absolute difference of each float output; ParityError when one exceeds `tolerance`.

    `reference` is what computed the `expected` outputs. A predicted class may differ only where its probability ties
    within the tolerance.
    """
    if set(expected) != set(graph_outputs):
        raise ParityError("the graph", f"has outputs {sorted(graph_outputs)}", f"Expected {sorted(expected)}")
    differences = {
        name: float(np.max(np.abs(values.astype(np.float64) - graph_outputs[name].astype(np.float64))))
        for name, values in expected.items()
        if np.issubdtype(values.dtype, np.floating)
    }
    # A NaN difference is a failure too.
    worst = {name: difference for name, difference in differences.items() if not difference <= tolerance}
    if worst:
        detail = ", ".join(f"{name} by {difference:.2g}" for name, difference in worst.items())
        raise ParityError(
            "the exported graph", f"differs from {reference} beyond {tolerance:g}: {detail}", "Do not ship it"
        )
    predicted = expected.get("prediction")
    share = 0.0 if predicted is None else float(np.mean(predicted != graph_outputs["prediction"]))
    if share > 0.001:
        raise ParityError("the exported graph", f"predicts other classes for {share:.2%} of inputs", "Do not ship it")
    return differences
