"""Scoring: a set of inputs through a scored model, in batches, with progress."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import InputArray
from training.data.token_ids import text_lengths
from training.models.score_heads import ScoredModel

Outputs = dict[str, NDArray[np.generic]]


@torch.inference_mode()
def score_inputs(
    model: ScoredModel,
    inputs: InputArray,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Every output of `model` that is `[N]`, by name, for stored `inputs` `[N, ...]`; in float32 throughout."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    n = inputs.shape[0]
    parts: list[dict[str, torch.Tensor]] = []
    order = scoring_order(inputs)
    for done, rows in row_batches(order, batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(inputs[rows])).to(device)
        # On a GPU, torch by default rounds what convolutions take to ten bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = zip(model.output_names, model(*model.model.prepare(batch)), strict=True)
        parts.append({name: output.cpu() for name, output in outputs if output.dim() == 1})
        if progress is not None:
            progress(done, n)
    return {name: in_order(torch.cat([part[name] for part in parts]).numpy(), order) for name in parts[0]}


def scoring_order(inputs: InputArray) -> NDArray[np.int64]:
    """The rows of `inputs` in the order of scoring: texts by length, so that little of a batch is padding."""
    if len(inputs.shape) == 2:
        return np.argsort(text_lengths(inputs), kind="stable")
    return np.arange(inputs.shape[0], dtype=np.int64)


def in_order(values: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """What was found for the rows `order`, at its rows."""
    found = np.empty_like(values)
    found[order] = values
    return found


def row_batches(order: NDArray[np.int64], size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The rows `order`, `size` at a time, each with how many are done after it."""
    n = len(order)
    return ((min(start + size, n), order[start : start + size]) for start in range(0, n, size))
