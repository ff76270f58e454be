"""Scoring: a set of inputs through a scored classifier, in batches, with progress."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import InputArray
from training.score_heads import ScoredClassifier

Outputs = dict[str, NDArray[np.generic]]


@torch.inference_mode()
def score_inputs(
    model: ScoredClassifier,
    inputs: InputArray,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Every output of `model` by name, each `[N]`, for stored `inputs` `[N, ...]`; in float32 throughout."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    n = inputs.shape[0]
    parts: list[tuple[torch.Tensor, ...]] = []
    for rows in row_batches(n, batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(inputs[rows])).to(device)
        # On a GPU, torch by default rounds what convolutions take to ten bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts.append(tuple(output.cpu() for output in model(*model.classifier.prepare(batch))))
        if progress is not None:
            progress(int(rows[-1]) + 1, n)
    columns = zip(*parts, strict=True)
    return {name: torch.cat(column).numpy() for name, column in zip(model.output_names, columns, strict=True)}


def row_batches(n: int, size: int) -> Iterator[NDArray[np.int64]]:
    """The rows 0..n-1 in order, `size` at a time."""
    return (np.arange(start, min(start + size, n), dtype=np.int64) for start in range(0, n, size))
