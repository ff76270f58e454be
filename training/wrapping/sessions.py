"""Sessions: a foreign graph run by ONNX Runtime on a bundle's inputs."""

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from training.data import InputArray
from training.errors import GraphError
from training.scoring.batch_scoring import restore_order, row_batches, scoring_order
from training.wrapping.input_adapter import Feed, InputAdapter
from training.wrapping.original import Original

_BATCH = 64
_FATAL = 3
"""ONNX Runtime's log level at which it says nothing of shapes that a wrapped graph no longer has."""


class OriginalLogits:
    """Computes logits with the original's own graph, at the batch size that it has or, where dynamic, at any."""

    def __init__(self, original: Original, adapter: InputAdapter) -> None:
        self._original = original
        self._adapter = adapter
        self._run = open_session(original.model, original.logits, adapter.options)

    def __call__(self, inputs: InputArray, progress: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """Logits float32 `[N, K]` of stored `inputs` `[N, ...]`; GraphError unless that is what the graph computes."""
        fixed, n = self._original.batch, inputs.shape[0]
        parts = []
        order = scoring_order(inputs)
        for done, rows in row_batches(order, fixed or _BATCH):
            # A last batch that is too short is filled up with its last input, again and again.
            filled = rows if fixed is None else np.pad(rows, (0, fixed - len(rows)), mode="edge")
            logits = self._run(self._adapter.feed(inputs[filled]))
            if logits.ndim != 2 or len(logits) != len(filled) or logits.shape[1] < 2:
                reason = f"has shape {list(logits.shape)} for {len(filled)} inputs"
                raise GraphError(self._original.logits, reason, "Logits are [N, K], K the number of classes")
            parts.append(logits[: len(rows)].astype(np.float32))
            if progress is not None:
                progress(done, n)
        return restore_order(np.concatenate(parts), order)


def open_session(model: ModelProto, output: str, options_at_fault: str) -> Callable[[Feed], NDArray[np.floating]]:
    """A function of the inputs that computes `output`; GraphError where ONNX Runtime refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # It raises types of its own, one for each kind of fault.
    except Exception as error:
        raise GraphError("the graph", f"is refused by ONNX Runtime: {error}", "Export the model again") from error

    def run(feed: Feed) -> NDArray[np.floating]:
        try:
            found: NDArray[np.floating] = session.run([output], dict(feed))[0]
        except Exception as error:
            given = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in feed.items())
            raise GraphError("the graph", f"does not take {given}: {error}", f"Check {options_at_fault}") from error
        return found

    return run
