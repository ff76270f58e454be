"""Text batches: stored rows of token ids as a network of texts takes them."""

from typing import Any

from torch import Tensor
from torch.export import Dim

from bundle import PADDING
from training.data.examples import NO_TOKEN

TEXT_INPUTS = ("tokens", "lengths")
"""The inputs of a text model's graph."""


def text_shapes(batch: Any) -> tuple[dict[int, Any], ...]:
    """The graph's dynamic axes: of `tokens` `[N, L]`, of `lengths` `[N]`."""
    return ({0: batch, 1: Dim("L")}, {0: batch})


def text_batch(rows: Tensor) -> tuple[Tensor, ...]:
    """Token ids int64 `[N, L]`, L the batch's longest text, and lengths `[N]`, of stored rows int32 `[N, T]`."""
    lengths = (rows != NO_TOKEN).sum(dim=1)
    tokens = rows[:, : int(lengths.max())].long()
    return tokens.where(tokens != NO_TOKEN, PADDING), lengths
