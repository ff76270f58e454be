"""ONNX graphs of scored models: export from torch, execution with ONNX Runtime, comparison of their outputs."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
from training.onnx_graphs import strip_source_locations
from training.scoring.batch_scoring import Outputs, restore_order, row_batches, scoring_order

Prepare = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""Converts stored rows to a graph's inputs, in their order: the method `prepare` of a model."""

_OPSET = 18
_BATCH = 64


def write_graph(model: ScoredModel, example: NDArray[Any], path: Path) -> None:
    """Write `model` as one self-contained file with a dynamic batch size and, for texts, a dynamic length.

    Args:
        model: The model; it is set to evaluation mode and moved to the CPU.
        example: At least two stored rows to trace the model with; texts of at least two tokens.
        path: The file to write.
    """
    # The exporter logs operators of packages that are not installed and warns of its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=Warning):
        torch.onnx.export(
            model.eval().cpu(),
            _example_inputs(model.model, torch.from_numpy(example)),
            str(path),
            input_names=list(model.model.input_names),
            output_names=list(model.output_names),
            # A tuple within a tuple, because `forward` has the single parameter `*inputs`.
            dynamic_shapes=(model.model.dynamic_shapes,),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(path)
        if isinstance(model.model, LanguageModel):
            splice_window_scan(graph, model.model)
    strip_source_locations(graph)
    onnx.save(graph, path)


def _example_inputs(model: Model, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The model's inputs for `rows`, without the last row if batch size and length are equal.

    The exporter would otherwise treat the two as one dynamic dimension.
    """
    inputs = model.prepare(rows)
    return model.prepare(rows[:-1]) if inputs[0].shape[0] == inputs[0].shape[1] else inputs


def run_graph(
    path: Path,
    inputs: InputArray,
    prepare: Prepare = lambda rows: (rows,),
    batch_size: int = _BATCH,
    outputs: Sequence[str] | None = None,
) -> Outputs:
    """The one-dimensional outputs of the graph for stored `inputs`, computed by ONNX Runtime on the CPU.

    Args:
        path: The graph's file.
        inputs: Stored images or texts, `[N, ...]`.
        prepare: Converts stored rows to the graph's inputs; the default is for images.
        batch_size: Inputs per call.
        outputs: The names of the outputs, each `[N]`; None for all of one dimension.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    input_names = [node.name for node in session.get_inputs()]
    names = list(outputs or (output.name for output in session.get_outputs() if len(output.shape) == 1))
    order = scoring_order(inputs)
    parts = [session.run(names, feed) for feed in graph_feeds(input_names, inputs, prepare, batch_size)]
    return {
        name: restore_order(np.concatenate(column), order)
        for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }


def graph_feeds(
    input_names: Sequence[str], inputs: InputArray, prepare: Prepare, batch_size: int = _BATCH
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The graph's inputs by name for stored `inputs` `[N, ...]`, batch by batch in the order of scoring."""
    for _, rows in row_batches(scoring_order(inputs), batch_size):
        prepared = prepare(torch.from_numpy(np.ascontiguousarray(inputs[rows])))
        yield dict(zip(input_names, (tensor.numpy() for tensor in prepared), strict=True))


def check_parity(
    expected: Outputs,
    graph_outputs: Outputs,
    tolerance: float,
    *,
    reference: str = "torch",
    tolerances: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Compare outputs with those of a reference implementation.

    Args:
        expected: The outputs of the reference.
        graph_outputs: The outputs of the graph.
        tolerance: The largest allowed difference of a float output, relative to the reference's value if its magnitude
            exceeds 1: energies and distances are large numbers in float32.
        reference: The name of the reference, for error messages.
        tolerances: The tolerance of each output for which `tolerance` is too small.

    Returns:
        Float output -> its largest absolute difference.

    Raises:
        ParityError: The outputs' names differ, a difference exceeds the tolerance or is NaN, or more than 0.1% of the
            predicted classes differ.
    """
    if set(expected) != set(graph_outputs):
        raise ParityError("the graph", f"has outputs {sorted(graph_outputs)}", f"Expected {sorted(expected)}")
    differences = {}
    too_large = {}
    for name, values in expected.items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        difference = np.abs(values.astype(np.float64) - graph_outputs[name].astype(np.float64))
        differences[name] = float(np.max(difference))
        relative = float(np.max(difference / np.maximum(1.0, np.abs(values))))
        # `not <=` instead of `>`, so that NaN counts as too large.
        if not relative <= tolerances.get(name, tolerance):
            too_large[name] = relative
    if too_large:
        detail = ", ".join(f"{name} by {difference:.2g}" for name, difference in too_large.items())
        raise ParityError(
            "the exported graph", f"differs from {reference} beyond {tolerance:g}: {detail}", "Do not ship it"
        )
    predicted = expected.get("prediction")
    share = 0.0 if predicted is None else float(np.mean(predicted != graph_outputs["prediction"]))
    if share > 0.001:
        raise ParityError("the exported graph", f"predicts other classes for {share:.2%} of inputs", "Do not ship it")
    return differences
