"""CUDA graphs: all kernels of a batch are recorded once and then launched as one, which saves their launch times."""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from service.inference.batch_invariance import rows_agree
from service.inputs.modality import Array

# ONNX Runtime records and replays one graph per value of this option of a run.
_GRAPH_ID = "gpu_graph_id"


@dataclass(frozen=True, slots=True)
class _BoundBatch:
    """The fixed buffers of one batch size, and what binds the session to them."""

    host: Mapping[str, Array]
    device: Mapping[str, onnxruntime.OrtValue]
    outputs: Sequence[onnxruntime.OrtValue]
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class CudaGraphRunner:
    """Runs a session through fixed buffers and batch sizes, as CUDA graphs require.

    A batch is filled up to the next of the batch sizes with rows of earlier batches, whose outputs are dropped. Inputs
    are copied to a buffer on the host, and from there to a buffer on the device, so that addresses and shapes never
    change: a session with the CUDA option `enable_cuda_graph` launches all kernels of a batch size as one graph.

    Thread-safe: one call runs at a time, because two threads cannot launch the same graph.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        sample_feed: Mapping[str, Array],
        sample_outputs: Mapping[str, Array],
        sizes: Sequence[int],
        device: str,
    ) -> None:
        """Allocate the buffers.

        Args:
            session: The session to run.
            sample_feed: A batch of one input; gives the types and shapes of a row of each input tensor.
            sample_outputs: The outputs for `sample_feed` by name; they give the types and shapes of rows, too.
            sizes: The batch sizes.
            device: "cuda", or "cpu" for tests.
        """
        self._session = session
        self._sizes = sorted(sizes)
        self._batches = [_bind(session, sample_feed, sample_outputs, size, device) for size in self._sizes]
        self._lock = threading.Lock()

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Compute a batch of at most the largest batch size.

        Args:
            feed: The input tensors by name, each `[N, ...]`.

        Returns:
            The outputs, each `[N, ...]`, in the order of the constructor's `sample_outputs`.
        """
        count = min(len(rows) for rows in feed.values())
        batch = self._batches[bisect_left(self._sizes, count)]
        with self._lock:
            for name, rows in feed.items():
                batch.host[name][:count] = rows
                batch.device[name].update_inplace(batch.host[name])
            self._session.run_with_iobinding(batch.binding, batch.options)
            # Copied, because on a CPU the array is the buffer itself, which the next call overwrites.
            return [output.numpy()[:count].copy() for output in batch.outputs]


def record_graphs(
    session: onnxruntime.InferenceSession,
    plain_session: onnxruntime.InferenceSession,
    output_names: Sequence[str],
    feeds: Iterable[Mapping[str, Array]],
    device: str = "cuda",
) -> CudaGraphRunner:
    """A runner that has recorded a graph for each of `feeds` and reproduces the outputs of `plain_session`.

    Args:
        session: A session with the option `enable_cuda_graph`.
        plain_session: A session of the same model without that option.
        output_names: The outputs to compute.
        feeds: One batch of each batch size, the first of one input.
        device: "cuda", or "cpu" for tests.

    Raises:
        ValueError: The graphs compute other outputs.
    """
    expected = [(feed, plain_session.run(output_names, feed)) for feed in feeds]
    sample_feed, sample_outputs = expected[0]
    sizes = [len(outputs[0]) for _, outputs in expected]
    runner = CudaGraphRunner(session, sample_feed, dict(zip(output_names, sample_outputs, strict=True)), sizes, device)
    for size, (feed, outputs) in zip(sizes, expected, strict=True):
        # The first call records, the second one replays.
        for computed in (runner.run(feed), runner.run(feed)):
            if not all(map(rows_agree, computed, outputs)):
                raise ValueError(f"CUDA graphs compute other outputs for a batch of {size}")
    return runner


def _bind(
    session: onnxruntime.InferenceSession,
    sample_feed: Mapping[str, Array],
    sample_outputs: Mapping[str, Array],
    size: int,
    device: str,
) -> _BoundBatch:
    binding = session.io_binding()
    host_inputs = {name: np.zeros((size, *rows.shape[1:]), rows.dtype) for name, rows in sample_feed.items()}
    device_inputs = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(rows.copy(), device, 0) for name, rows in host_inputs.items()
    }
    for name, value in device_inputs.items():
        binding.bind_ortvalue_input(name, value)
    outputs = [
        onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, *rows.shape[1:]), rows.dtype.type, device, 0)
        for rows in sample_outputs.values()
    ]
    for name, value in zip(sample_outputs, outputs, strict=True):
        binding.bind_ortvalue_output(name, value)
    options = onnxruntime.RunOptions()
    if device != "cpu":
        options.add_run_config_entry(_GRAPH_ID, str(size))
    return _BoundBatch(host_inputs, device_inputs, outputs, binding, options)
