"""Sessions: a foreign graph run by ONNX Runtime on the bundle's images."""

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from training.data import InputArray
from training.errors import GraphError
from training.scoring import row_batches
from training.wrapping.image_plan import ImagePlan
from training.wrapping.original import Original

_BATCH = 64
_FATAL = 3
"""ONNX Runtime's log level at which it says nothing of shapes that a wrapped graph no longer has."""


class OriginalLogits:
    """Computes logits with the original's own graph, at the batch size that it has or, where dynamic, at any."""

    def __init__(self, original: Original, plan: ImagePlan) -> None:
        self._original = original
        self._plan = plan
        self._run = open_session(original.model, original.logits)

    def __call__(self, images: InputArray, progress: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """Logits float32 `[N, K]` of uint8 images `[N, H, W, C]`; GraphError unless that is what the graph computes."""
        fixed, n = self._original.shape[0], images.shape[0]
        parts = []
        for done, rows in row_batches(np.arange(n, dtype=np.int64), fixed or _BATCH):
            # A last batch that is too short is filled up with its last image, again and again.
            filled = rows if fixed is None else np.pad(rows, (0, fixed - len(rows)), mode="edge")
            logits = self._run(self._original.input, self._plan.adapt(images[filled]))
            if logits.ndim != 2 or len(logits) != len(filled) or logits.shape[1] < 2:
                reason = f"has shape {list(logits.shape)} for {len(filled)} images"
                raise GraphError(self._original.logits, reason, "Logits are [N, K], K the number of classes")
            parts.append(logits[: len(rows)].astype(np.float32))
            if progress is not None:
                progress(done, n)
        return np.concatenate(parts)


def open_session(model: ModelProto, output: str) -> Callable[[str, NDArray[np.generic]], NDArray[np.floating]]:
    """A function of an input's name and value that computes `output`; GraphError where ONNX Runtime refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # It raises types of its own, one for each kind of fault.
    except Exception as error:
        raise GraphError("the graph", f"is refused by ONNX Runtime: {error}", "Export the model again") from error

    def run(name: str, value: NDArray[np.generic]) -> NDArray[np.floating]:
        try:
            found: NDArray[np.floating] = session.run([output], {name: value})[0]
        except Exception as error:
            reason = f"does not take {value.dtype} {list(value.shape)}: {error}"
            raise GraphError(f"the graph's input '{name}'", reason, "Check --layout and --size") from error
        return found

    return run
