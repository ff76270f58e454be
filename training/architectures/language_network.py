"""The language network: what a language model needs of an architecture that predicts a text symbol by symbol."""

from typing import Protocol

from torch import Tensor


class LanguageNetwork(Protocol):
    """A causal network of symbols 0..V-1 that reads a text in pieces; in fact an `nn.Module`."""

    def __call__(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, W, V]` of the symbol behind each of `inputs` int64 `[N, W]`, and the state behind the last.

        `state` float `[N, S]` is `initial_state`'s at a text's start, and what the piece before gave after that.
        """
        ...

    def initial_state(self, n: int) -> Tensor:
        """The state `[n, S]` of `n` texts that have not begun, on the network's device."""
        ...
