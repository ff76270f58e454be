"""Batch scoring: the outputs of a scored model for a whole set of inputs, with progress."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import InputArray
from training.data.token_ids import text_lengths
from training.models.score_heads import ScoredModel

Outputs = dict[str, NDArray[np.generic]]
"""Output name -> values of all inputs, in their order."""


@torch.inference_mode()
def score_inputs(
    model: ScoredModel,
    inputs: InputArray,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """The one-dimensional outputs of `model` for stored `inputs` `[N, ...]`, computed in float32.

    Args:
        model: The model; it is set to evaluation mode and moved to `device`.
        inputs: Stored images or texts.
        batch_size: Inputs per forward pass.
        device: By default the GPU if there is one, else the CPU.
        progress: Called after each batch with the number of scored inputs and N.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    n = inputs.shape[0]
    parts: list[dict[str, torch.Tensor]] = []
    order = scoring_order(inputs)
    for done, rows in row_batches(order, batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(inputs[rows])).to(device)
        # By default torch rounds the inputs of convolutions on a GPU to ten bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = zip(model.output_names, model(*model.model.prepare(batch)), strict=True)
        # On the device until all batches are queued: each copy from a GPU waits for it.
        parts.append({name: output for name, output in outputs if output.dim() == 1})
        if progress is not None:
            progress(done, n)
    return {name: restore_order(torch.cat([part[name] for part in parts]).cpu().numpy(), order) for name in parts[0]}


def scoring_order(inputs: InputArray) -> NDArray[np.int64]:
    """The rows of `inputs` in the order of scoring: texts sorted by length, which keeps padding small."""
    if len(inputs.shape) == 2:
        return np.argsort(text_lengths(inputs), kind="stable")
    return np.arange(inputs.shape[0], dtype=np.int64)


def restore_order(values: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """`values`, which were computed in the given `order` of rows, in the order of the rows themselves."""
    restored = np.empty_like(values)
    restored[order] = values
    return restored


def row_batches(order: NDArray[np.int64], size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Batches of `size` rows of `order`, each with the number of rows up to and including it."""
    n = len(order)
    return ((min(start + size, n), order[start : start + size]) for start in range(0, n, size))
