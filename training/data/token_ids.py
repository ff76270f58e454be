"""Token ids: how texts are stored as rows of an array, and the batches that text networks read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim

from bundle import PADDING
from training.data.examples import InputArray

NO_TOKEN = -1
"""Fills a stored row after its last token. Token ids start at 0."""

TEXT_INPUTS = ("tokens", "lengths")
"""The input names of a text model's graph."""


def text_lengths(x: InputArray) -> NDArray[np.int64]:
    """The number of tokens of each stored text, int64 `[N]`."""
    rows = x[np.arange(x.shape[0], dtype=np.int64)]
    return np.asarray((rows != NO_TOKEN).sum(axis=1), dtype=np.int64)


def text_batch(rows: Tensor) -> tuple[Tensor, ...]:
    """The inputs of a text network for stored rows int32 `[N, T]`.

    Returns:
        Token ids int64 `[N, L]`, padded with `PADDING`, where L is the length of the longest text; lengths int64 `[N]`.
    """
    lengths = (rows != NO_TOKEN).sum(dim=1)
    tokens = rows[:, : int(lengths.max())].long()
    return tokens.where(tokens != NO_TOKEN, PADDING), lengths


def text_shapes(batch: Any) -> tuple[dict[int, Any], ...]:
    """The dynamic axes of a text graph's inputs: `tokens` `[N, L]` and `lengths` `[N]`."""
    return ({0: batch, 1: Dim("L")}, {0: batch})
