"""Calls in a few fixed batch sizes, between buffers that stay where they are: what a CUDA graph can be recorded of."""

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from service.inputs.modality import Array

# ONNX Runtime records one graph for each number that is given here, and replays it.
_GRAPH_ID = "gpu_graph_id"


@dataclass(frozen=True, slots=True)
class _Call:
    """One batch size: its inputs here and on the device, its outputs there, and what binds the session to both."""

    here: Mapping[str, Array]
    there: Mapping[str, onnxruntime.OrtValue]
    outputs: Sequence[onnxruntime.OrtValue]
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class CudaGraphRunner:
    """Runs `session` on batches of at most the largest of `sizes`, each filled up to the next of them.

    Inputs are collated in a buffer that is used again, copied to the one on `device` ("cuda", "cpu"), and computed
    between addresses and in shapes that never change: a session with the CUDA option `enable_cuda_graph` launches all
    kernels of a batch size as one. What fills a batch up are rows of an earlier one; their outputs are dropped.
    One call at a time: a graph cannot be launched by two threads.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        one: Mapping[str, Array],
        outputs: Mapping[str, Array],
        sizes: Sequence[int],
        device: str,
    ) -> None:
        """`one` is a batch of one, and `outputs` what it gives: of both, types and the shapes of a row count."""
        self._session = session
        self._sizes = sorted(sizes)
        self._calls = [_bind(session, one, outputs, size, device) for size in self._sizes]
        self._turn = threading.Lock()

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """The outputs `[N, ...]`, in the order of the `outputs` that were given, of the inputs `[N, ...]` in `feed`."""
        count = min(len(rows) for rows in feed.values())
        call = self._calls[bisect_left(self._sizes, count)]
        with self._turn:
            for name, rows in feed.items():
                call.here[name][:count] = rows
                call.there[name].update_inplace(call.here[name])
            self._session.run_with_iobinding(call.binding, call.options)
            # Copied, for on a CPU it would be the buffer itself, which the next call writes to.
            return [output.numpy()[:count].copy() for output in call.outputs]


def _bind(
    session: onnxruntime.InferenceSession,
    one: Mapping[str, Array],
    outputs: Mapping[str, Array],
    size: int,
    device: str,
) -> _Call:
    binding = session.io_binding()
    here = {name: np.zeros((size, *rows.shape[1:]), rows.dtype) for name, rows in one.items()}
    there = {name: onnxruntime.OrtValue.ortvalue_from_numpy(rows.copy(), device, 0) for name, rows in here.items()}
    for name, value in there.items():
        binding.bind_ortvalue_input(name, value)
    found = [
        onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, *rows.shape[1:]), rows.dtype.type, device, 0)
        for rows in outputs.values()
    ]
    for name, value in zip(outputs, found, strict=True):
        binding.bind_ortvalue_output(name, value)
    options = onnxruntime.RunOptions()
    if device != "cpu":
        options.add_run_config_entry(_GRAPH_ID, str(size))
    return _Call(here, there, found, binding, options)
