"""CUDA graphs: all kernels of a batch are recorded once and then launched as one, which saves their launch times."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from service.inference.batch_invariance import rows_agree
from service.inference.capture_lock import CAPTURE_LOCK
from service.inference.fixed_batches import FixedBatches
from service.inputs.modality import Array

# Of the start of an output in the buffer, in bytes; as cudaMalloc aligns.
_ALIGNMENT = 256


class GraphsDiffer(Exception):
    """The graphs compute other outputs than plain calls."""


class _Place(NamedTuple):
    """The place of an output in the buffer of all outputs."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, content: Array) -> Array:
        """The output in `content`, the bytes of the buffer."""
        return np.ndarray(self.shape, self.dtype, content.data, self.offset)


class GraphBatch:
    """Batches of one size, by a session with the CUDA option `enable_cuda_graph`.

    Inputs and outputs have fixed buffers on the device, because a graph reads and writes the addresses that it was
    recorded with. The first call records, so it must be made on the thread that makes all other calls: ONNX Runtime
    keeps graphs per thread.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        feed: Mapping[str, Array],
        outputs: Mapping[str, Array],
        device: str = "cuda",
        device_index: int = 0,
    ) -> None:
        """Allocate the buffers.

        Args:
            session: The session.
            feed: A full batch; gives the types and shapes of the input tensors.
            outputs: The outputs for `feed` by name; they give the types and shapes.
            device: "cuda", or "cpu" for tests.
            device_index: The index of the GPU.
        """
        self.session = session
        self._inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(rows.copy(), device, device_index)
            for name, rows in feed.items()
        }
        # One buffer for all outputs: each copy from a device waits for the device.
        self._places: list[_Place] = []
        end = 0
        for rows in outputs.values():
            self._places.append(_Place(end, rows.dtype, rows.shape))
            end += -(-rows.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type((end,), np.uint8, device, device_index)
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, place in zip(outputs, self._places, strict=True):
            address = self._buffer.data_ptr() + place.offset
            self._binding.bind_output(name, device, device_index, place.dtype.type, place.shape, address)

    def run(self, feed: Mapping[str, Array], options: onnxruntime.RunOptions | None = None) -> list[Array]:
        """Compute a full batch."""
        for name, rows in feed.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(rows))
        self.session.run_with_iobinding(self._binding, options)
        # Copied, because on a CPU the array is the buffer itself, which the next call overwrites.
        content = self._buffer.numpy().copy()
        return [place.read(content) for place in self._places]


def record_graphs(
    plain: FixedBatches,
    output_names: Sequence[str],
    sample_feed: Callable[[int], Mapping[str, Array]],
    open_session: Callable[[], onnxruntime.InferenceSession],
    device: str = "cuda",
    device_index: int = 0,
) -> FixedBatches:
    """Record a graph for each batch size. Call it on the thread that will run them.

    Args:
        plain: Plain calls, which the graphs must reproduce.
        output_names: The outputs to compute.
        sample_feed: A batch of a given size.
        open_session: Opens a session with the option `enable_cuda_graph`.
        device: "cuda", or "cpu" for tests.
        device_index: The index of the GPU.

    Raises:
        GraphsDiffer: The graphs compute other outputs.
    """
    batches: dict[int, GraphBatch] = {}
    for size, batch in plain.batches.items():
        feed = sample_feed(size)
        expected = batch.run(feed)
        graph = GraphBatch(open_session(), feed, dict(zip(output_names, expected, strict=True)), device, device_index)
        # Without recording, so that calls of other models do not wait while convolutions are planned.
        graph.run(feed, _no_recording(device))
        with CAPTURE_LOCK.recording():
            recorded = graph.run(feed)
        # The second call replays.
        for computed in (recorded, graph.run(feed)):
            if not all(map(rows_agree, computed, expected)):
                raise GraphsDiffer(f"CUDA graphs compute other outputs for a batch of {size}")
        batches[size] = graph
    return FixedBatches(batches)


def _no_recording(device: str) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    if device != "cpu":
        options.add_run_config_entry("gpu_graph_id", "-1")
    return options
