"""Runs an ONNX classifier with ONNX Runtime on stored inputs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from training.data import InputArray
from training.errors import GraphError
from training.scoring.batch_scoring import restore_order, row_batches, scoring_order
from training.wrapping.input_adapter import Feed, InputAdapter
from training.wrapping.onnx_classifier import OnnxClassifier

_BATCH = 64
_FATAL = 3
"""The log level at which ONNX Runtime writes neither warnings nor the errors that it raises as exceptions too."""


class ClassifierValues(NamedTuple):
    """The logits `[N, ...]` of a classifier and its features `[N, D]`, in float32; None if no score needs features."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None = None

    def named(self, classifier: OnnxClassifier) -> list[tuple[str, NDArray[np.float32]]]:
        """The arrays that are not None, with their tensors in `classifier`."""
        arrays = [array for array in self if array is not None]
        return list(zip(classifier.tensors, arrays, strict=True))


class ClassifierSession:
    """Computes the logits and features of a classifier with its own graph, at its fixed batch size if it has one."""

    def __init__(self, classifier: OnnxClassifier, adapter: InputAdapter) -> None:
        self._classifier = classifier
        self._adapter = adapter
        self._run = open_session(classifier.model, classifier.tensors, adapter.options)

    def __call__(self, inputs: InputArray, progress: Callable[[int, int], None] | None = None) -> ClassifierValues:
        """The logits and features for stored `inputs` `[N, ...]`.

        Raises:
            GraphError: if the graph does not accept the inputs, or if its output has another number of rows.
        """
        fixed, n = self._classifier.batch, inputs.shape[0]
        parts: list[list[NDArray[np.float32]]] = []
        order = scoring_order(inputs)
        for done, rows in row_batches(order, fixed or _BATCH):
            # Repeats of the last input fill up the last batch of a graph with a fixed batch size.
            filled = rows if fixed is None else np.pad(rows, (0, fixed - len(rows)), mode="edge")
            values = self._run(self._adapter.feed(inputs[filled]))
            for tensor, array in zip(self._classifier.tensors, values, strict=True):
                if len(array) != len(filled):
                    reason = f"has shape {list(array.shape)} for {len(filled)} inputs"
                    remedy = "Logits are [N, K], K the number of classes; features are [N, D]"
                    raise GraphError(f"'{tensor}'", reason, remedy)
            parts.append([array[: len(rows)].astype(np.float32) for array in values])
            if progress is not None:
                progress(done, n)
        return ClassifierValues(*(restore_order(np.concatenate(part), order) for part in zip(*parts, strict=True)))


def open_session(model: ModelProto, outputs: Sequence[str], options: str) -> Callable[[Feed], list[NDArray[Any]]]:
    """A function that computes the tensors `outputs` of `model` for a feed, on the CPU.

    Both opening and calling raise `GraphError` with ONNX Runtime's message; `options` are those of the command that
    describe the graph's input, for the remedy.
    """
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = _FATAL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime has an exception type for each kind of fault, without a common base.
    except Exception as error:
        raise GraphError("the graph", f"is refused by ONNX Runtime: {error}", "Export the model again") from error

    run_options = onnxruntime.RunOptions()
    run_options.log_severity_level = _FATAL

    def run(feed: Feed) -> list[NDArray[Any]]:
        try:
            values: list[NDArray[Any]] = session.run(list(outputs), dict(feed), run_options)
        except Exception as error:
            arrays = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in feed.items())
            raise GraphError("the graph", f"does not take {arrays}: {error}", f"Check {options}") from error
        return values

    return run
