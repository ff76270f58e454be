"""Scoring: a set of images through a scored classifier, in batches, with progress."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import ImageArray
from training.score_heads import ScoredClassifier

Outputs = dict[str, NDArray[np.generic]]


@torch.inference_mode()
def score_images(
    model: ScoredClassifier,
    images: ImageArray,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Every output of `model` by name, each `[N]`, for `images` `[N, H, W, C]`; in float32 throughout."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    n = images.shape[0]
    parts: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n), dtype=np.int64)
        batch = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
        # On a GPU, torch by default rounds what convolutions take to ten bits (TF32).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts.append(tuple(output.cpu() for output in model(batch)))
        if progress is not None:
            progress(int(rows[-1]) + 1, n)
    columns = zip(*parts, strict=True)
    return {name: torch.cat(column).numpy() for name, column in zip(model.output_names, columns, strict=True)}
